"""Requests that bring a real image: their fields, and how they are checked."""
