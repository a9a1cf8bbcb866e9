"""One connection: bytes to requests and answers to bytes, strictly and within bounds."""
