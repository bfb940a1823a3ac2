"""Images: what is to be drawn, and the stored pictures."""
