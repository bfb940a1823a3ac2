"""Torch training on frozen features: no HTTP, no SQL, no pydantic."""
