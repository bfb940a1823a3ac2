"""What it costs to write an image, by format and setting: `python -m bench.encoding`."""
