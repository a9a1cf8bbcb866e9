"""One run on disk: its folder, journal and sample grids, and the steps from data to a model."""
