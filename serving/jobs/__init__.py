"""Long jobs: more images than one request may ask for, made in the background and kept in files."""
