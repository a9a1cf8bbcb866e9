"""Calls over gRPC that don't take the detour by the routes."""
