"""The figures of a run that trains, for Prometheus."""
