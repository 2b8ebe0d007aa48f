"""What differs between databases: opening one, the text of its statements, its errors, its tables; a folder for each."""
