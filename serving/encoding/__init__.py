"""Pixels to bytes: image formats, whole bodies, and a cache of encoded images."""
