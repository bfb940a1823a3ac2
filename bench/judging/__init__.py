"""`/classify` and `/clip-score` under sixteen clients, against tuned peers on the same random weights.

`python -m bench.judging` starts LitServe and, for CLIP, infinity, each in an environment of its own (`build/peers`,
built the first time), makes sure that they answer what we do, tunes them, and then measures all by turns.
"""
