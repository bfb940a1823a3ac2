"""What a GPU makes of Stable Diffusion v1.5: forwards, images a second, row packing, decoding, parity.

The weights are random, built from the published configuration: the same work, meaningless pictures.
`python -m bench.gpu` prints a table and one line of JSON.
"""
