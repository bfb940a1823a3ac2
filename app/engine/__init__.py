"""Torch inference: one device thread runs all models, step by step.

Imports no HTTP, SQL or pydantic. This file imports nothing, so that the batcher stays free of torch. The layers, from
the ground up: `request`, `runner`, `cache`; `scheduling`, `kernels`; `diffusion`, `clip`, `resnet`; `engine`.

Shape letters used in the docstrings of this package: `B` requests, `R` rows of a UNet forward (2 for a guided
step, 1 for an unguided one), `C` channels, `H W` pixels, `h w` latent cells (`H/8`, `W/8`), `T` prompt tokens (77),
`D` embedding width, `K` classes.
"""
