"""The commands of the program `xlner`: their options, what they print, how they end."""
