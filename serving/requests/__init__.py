"""What may be asked for: request bodies as types, their rules and deadlines."""
