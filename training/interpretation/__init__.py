"""Directions and units of a generator: what they change, and the evidence for it."""
