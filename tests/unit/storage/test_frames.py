"""Animations are told from single pictures by their first bytes."""

import io

import pytest
from PIL import Image

from app.storage.frames import is_animated

FRAMES = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]


def saved(image_format: str, *, frames: int) -> bytes:
    buffer = io.BytesIO()
    FRAMES[0].save(buffer, image_format, save_all=frames > 1, append_images=FRAMES[1:frames])
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_several_frames_are_an_animation_and_one_is_not(image_format: str) -> None:
    assert is_animated(saved(image_format, frames=3))
    assert not is_animated(saved(image_format, frames=1))


@pytest.mark.parametrize("image_format", ["png", "webp", "jpeg"])
def test_a_file_cut_off_anywhere_is_read_without_an_error(image_format: str) -> None:
    data = saved(image_format, frames=1)
    assert not any(is_animated(data[:length]) for length in range(len(data)))
