"""Why the game's players circle, collapse or settle: small games whose answers are known."""
