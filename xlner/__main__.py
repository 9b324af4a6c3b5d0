"""`python -m xlner`, and `accelerate launch -m xlner distill target=de` on several processes: the command `xlner`."""

from xlner.launcher import end_with_the_launcher

if __name__ == "__main__":
    end_with_the_launcher()  # before the imports of the command line
    from xlner.cli import main

    main()
