"""Command lines of training: parsing and checking the options, and the text of --list."""
