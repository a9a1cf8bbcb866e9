"""Steps and state: one step, the loop, averages, checkpoints, several processes."""
