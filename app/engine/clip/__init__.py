"""CLIP: texts, pixels and their similarity."""
