"""HTTP/2 (RFC 9113): frames, compressed headers, streams; knows neither gRPC nor models."""
