"""What is wrong with a corpus; the command `xlner check-data` and nothing else."""
