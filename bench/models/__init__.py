"""Several models on a node: loaded and evicted under load, beside one model. `python -m bench.models`."""
