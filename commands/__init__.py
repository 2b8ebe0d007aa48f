"""How a terminal is spoken to: the commands, family by family, and what they print."""
