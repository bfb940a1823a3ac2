"""Answered requests to draw images from a prompt, and the job that answers later."""
