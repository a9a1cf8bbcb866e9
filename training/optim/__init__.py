"""How a player moves: optimisers, schedules, constraints, initial weights."""
