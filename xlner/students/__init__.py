"""Compact students: what they read of words, their networks, and their model folder. Knows no training."""
