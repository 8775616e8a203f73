"""From checkpoints to modules."""
