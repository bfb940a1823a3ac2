"""Measures what `speed: balanced` changes: rows, likeness, CLIP and an independent judge. `python -m bench.speed`."""
