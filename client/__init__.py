"""The device's side of a fleet: tasks done in worker processes, inside the owner's budget."""
