"""Watches a training for known failures, and chooses what a rescue changes."""
