"""Feature extractors: functions from images to rows of numbers, which the metrics compare."""
