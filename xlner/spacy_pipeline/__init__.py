"""A pipeline of spaCy's own, trained on what taggers find in raw text; needs the extra `spacy`."""
