"""The embedded default: a small written corpus and a tiny model, built on the spot."""
