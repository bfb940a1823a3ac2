"""The demo pack: a small drawn world, the models taught on it, and how they were made."""
