"""The commands of `xlner`, a module each; `cli` puts them together."""
