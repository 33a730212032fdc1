"""How fast things are: one module per question, each a command that prints one JSON line per measurement."""
