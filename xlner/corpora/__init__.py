"""Text and labels in, sentences out; what is wrong is told as file:line. Knows no network."""
