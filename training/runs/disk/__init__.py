"""A run's files on a disk that may be full: written later, or waited for."""
