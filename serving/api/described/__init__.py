"""What is served, described: models, and the parts that their images are changed by."""
