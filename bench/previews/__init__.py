"""Previews: fits the demo pack's colours, and measures what previews cost. `python -m bench.previews`."""
