"""Networks and their folders: tensors in, tensors out. Knows no corpus."""
