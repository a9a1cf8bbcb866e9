"""API keys in a file: one a line, under a name, hashed, with what it may do. Knows no HTTP."""
