"""How all that flagsweep knows goes to another database, or into a file and back."""
