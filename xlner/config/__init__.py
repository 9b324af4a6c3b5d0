"""Recipes: every key with its default, unit and bound, and how files and `key=value` fill them."""
