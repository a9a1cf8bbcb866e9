"""Which weight of a penalty gives the best images: a run's own game, played on at several."""
