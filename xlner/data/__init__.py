"""Text to tensors: corpora, alignment, pairs, batches, stored soft labels. Knows no model."""
