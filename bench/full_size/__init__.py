"""A guided step of Stable Diffusion v1.5 at 512 x 512 on this machine's CPU, by turns: ours and three others.

The weights are random, in the published architecture: the same work, meaningless pictures. Others are diffusers' layers
in channels_last, those compiled by torch with frozen weights, and OpenVINO, which has an environment and a process of
its own. `python -m bench.full_size` prints a table and one line of JSON; it takes up to 14 GiB in float32.
"""
