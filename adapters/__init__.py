"""How a data layer is spoken to: its rows are found, loaded and lowered."""
