"""The processes: supervisor, HTTP process, readiness and drain."""
