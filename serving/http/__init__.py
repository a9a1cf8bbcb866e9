"""HTTP on ASGI: messages, heads, negotiation, keys and rates. Knows no models."""
