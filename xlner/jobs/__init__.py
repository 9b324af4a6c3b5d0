"""The jobs: teacher, distillation, adaptation; each read top to bottom."""
