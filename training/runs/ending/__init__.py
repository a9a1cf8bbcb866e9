"""The end of a run: which weights become the model, its bundle, its film, and its publication."""
