"""Graphs beside the whole model: opened when a request first needs them."""
