"""Prompts for the UNet: read in both syntaxes, encoded, and their keys and values kept for a request's steps."""
