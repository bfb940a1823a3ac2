"""Measures what `speed: fast` gives: class, colour and seconds beside 50 exact steps. `python -m bench.fast`."""
