"""Many images into files: planned in shards, made by processes or on Ray. No server, no torch."""
