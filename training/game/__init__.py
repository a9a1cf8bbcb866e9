"""The rules of the game: objectives, penalties, who moves when. Pure functions of (G, D, batch)."""
