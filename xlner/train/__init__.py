"""Training: objectives, the loop, checkpoints, the run and its report."""
