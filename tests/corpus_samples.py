"""Two sentences, and how a file may hold them."""

from xlner.words import Sentence

KIEL = Sentence(("Angela", "Merkel", "in", "Kiel"), ("B-PER", "I-PER", "O", "B-LOC"))
RAIN = Sentence(("Regen",), ("O",))
TWO_COLUMNS = "Angela\tB-PER\nMerkel\tI-PER\nin\tO\nKiel\tB-LOC\n\nRegen\tO\n"
