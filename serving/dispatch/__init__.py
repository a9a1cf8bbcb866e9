"""Rows to workers: which versions there are, what waits, and what each worker is sent."""
