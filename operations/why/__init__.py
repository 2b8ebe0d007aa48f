"""Why something does not run: one list of reasons, each with its sentence, and what would change it."""
