"""The bytes that requests without any of the settings for speed had before there were such settings.

A stub of elementwise products, sums and quotients stands in for the UNet: IEEE 754 rounds those alike on every machine.
The stored hashes are of release 0.3's code, of the latents after the last step.
"""

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from app.engine.diffusion.denoiser import Denoiser
from app.engine.diffusion.image_state import ImageState
from app.engine.diffusion.noise.plan import REMEMBERED, make_noise_plan
from app.engine.diffusion.options import DenoisingOptions
from testing.tiny import NOISE_SCHEDULER

CONFIG = {**NOISE_SCHEDULER, "clip_sample": False}
SHAPE = (4, 5, 3)

HASHES: dict[tuple[str, int, float], str] = {
    ("pndm", 50, 7.5): "d990782af653cc14",
    ("pndm", 20, 7.5): "c0c63e78128b3e9c",
    ("pndm", 7, 1.0): "29b3272b54d34280",
    ("ddim", 20, 7.5): "dc5c04aaa5fff7d0",
    ("ddim", 7, 1.0): "e33b3f6fec84ae06",
    ("euler", 20, 7.5): "662b7b9fe9aeccdf",
    ("euler", 7, 1.0): "86d3c5b95d6b2bab",
    ("euler_a", 20, 7.5): "0f1d99f34b85a977",
    ("euler_a", 7, 1.0): "0df3fb4a5fc9e031",
    ("dpmpp_2m", 20, 7.5): "330e579106392085",
    ("dpmpp_2m", 7, 1.0): "2af1c90694e8a155",
    ("dpmpp_2m_karras", 20, 7.5): "6f6f4018343e3a1a",
    ("dpmpp_2m_karras", 7, 1.0): "c600f2452bdcd3aa",
    ("unipc", 20, 7.5): "5bf6723863718a2a",
    ("unipc", 7, 1.0): "aff185d1b25fd3fe",
    ("lcm", 20, 7.5): "cfd39a989ae5268b",
    ("lcm", 7, 1.0): "eacd25ed45f93ce4",
}


class StubUNet:
    """Stands in for a `UNet2DConditionModel`; the text moves its output, so guidance has an effect."""

    dtype = torch.float32
    config = SimpleNamespace(in_channels=4, sample_size=8)

    def __call__(
        self, samples: torch.Tensor, timesteps: torch.Tensor, *, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        times = timesteps[:, None, None, None] / 1000
        texts = encoder_hidden_states[:, 0, 0, None, None, None]
        return ((1.5 - times) * samples / (1 + 0.25 * samples * samples) + 0.25 * times * texts,)


def make_image(name: str, num_steps: int, guidance_scale: float) -> ImageState:
    plan = make_noise_plan(name, num_steps, CONFIG)
    generator = torch.Generator().manual_seed(7)
    tensors = torch.zeros(1 + REMEMBERED, *SHAPE)
    tensors[0] = torch.randn(SHAPE, generator=generator) * plan.init_noise_sigma
    texts = torch.tensor([0.5, 1.0] if guidance_scale > 1 else [1.0])
    return ImageState(plan, texts[:, None, None], guidance_scale, generator, tensors)


def digest(image: ImageState) -> str:
    return hashlib.sha256(image.latents.contiguous().numpy().tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("name", "num_steps", "guidance_scale"), HASHES)
def test_the_latents_are_those_of_the_release_before(name: str, num_steps: int, guidance_scale: float) -> None:
    image = make_image(name, num_steps, guidance_scale)
    denoiser = Denoiser(StubUNet(), torch.device("cpu"), torch.zeros(1, 1, 1), DenoisingOptions(sizes=(8,)))
    while not image.is_denoised:
        denoiser.step([image])
    assert digest(image) == HASHES[name, num_steps, guidance_scale]
