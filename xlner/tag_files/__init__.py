"""Tagging files: records in, the same records with their entities out."""
