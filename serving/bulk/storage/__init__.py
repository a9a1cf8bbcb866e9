"""Where files go: a local folder, or any address that fsspec knows."""
