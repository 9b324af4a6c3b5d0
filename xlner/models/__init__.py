"""Networks: tensors in, tensors out. Knows no corpus and no batch record."""
