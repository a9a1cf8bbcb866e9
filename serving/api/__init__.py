"""The routes: v1, the Open Inference Protocol v2, probes, pages and openapi.json."""
