"""`python -m xlner`, and `accelerate launch -m xlner distill target=de` on several processes: the command `xlner`."""

from xlner.cli import main

if __name__ == "__main__":
    main()
