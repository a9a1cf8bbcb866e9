"""One round of steps as a linear map: its operator, its optimisers, where it contracts."""
