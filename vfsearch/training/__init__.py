"""The training loop, its stages, its checkpoints and its collectives (pure torch)."""
