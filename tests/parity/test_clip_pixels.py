"""Pictures prepared for CLIP, bit for bit as transformers' image processor prepares them."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from app.engine.clip.pixels import pixels_by

SIZES = [
    (640, 480),
    (1, 1),
    (3, 200),
    (223, 225),
    (224, 224),
    (225, 224),
    (512, 512),
    (1023, 767),
    (31, 100),
    (227, 224),
    (224, 229),
]


def draw(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


class Counted:
    """A processor that counts its calls."""

    def __init__(self, **settings: Any) -> None:
        self.original = CLIPImageProcessor(**settings)
        self.num_calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def __call__(self, **inputs: Any) -> Any:
        self.num_calls += 1
        return self.original(**inputs)


@pytest.mark.parametrize("settings", [{}, {"resample": 2}, {"size": {"shortest_edge": 60}, "crop_size": 32}])
def test_usual_settings_give_the_same_bits_without_the_processor(settings: dict[str, Any]) -> None:
    processor = Counted(**settings)
    pixels, num_calls = pixels_by(processor), processor.num_calls
    for size in SIZES:
        ours, theirs = pixels(draw(size)), processor.original(images=draw(size), return_tensors="pt").pixel_values[0]
        assert torch.equal(ours, theirs), size
        assert ours.is_contiguous()
    assert processor.num_calls == num_calls


@pytest.mark.parametrize(
    "settings",
    [
        {"do_resize": False},
        {"do_center_crop": False, "size": {"height": 224, "width": 224}},
        {"do_normalize": False},
        {"do_rescale": False},
        {"resample": 1},
    ],
    ids=str,
)
def test_unusual_settings_are_left_to_the_processor(settings: dict[str, Any]) -> None:
    processor = Counted(**settings)
    pixels, num_calls = pixels_by(processor), processor.num_calls
    theirs = processor.original(images=draw((300, 400)), return_tensors="pt").pixel_values[0]
    assert torch.equal(pixels(draw((300, 400))), theirs)
    assert processor.num_calls == num_calls + 1
