"""The training loop and the two jobs that run on it: teacher and distillation."""
