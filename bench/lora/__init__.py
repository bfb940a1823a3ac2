"""Measures what a LoRA of a style does to the demo pack's images, by its weight. `python -m bench.lora`."""
