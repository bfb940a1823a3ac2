"""Fitted colours on disk, and the thread that encodes previews."""

import io
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.engine.diffusion.previews import LatentColours
from app.modelpacks.pack import ModelPack, demo_pack_folder, read_pack
from app.services.images.previews import ColoursFile, Previews, encode_preview, find_colours, shipped_colours
from testing.waiting import PATIENCE_S

COLOURS = LatentColours(np.full((4, 3), 0.1, np.float32), np.full(3, 0.5, np.float32))


def unexpected() -> LatentColours:
    raise AssertionError("fitted although they are known")


def test_the_demo_pack_brings_its_colours(tmp_path: Path) -> None:
    pack = read_pack(demo_pack_folder())
    colours = find_colours(pack, tmp_path, unexpected)
    assert colours is not None
    assert colours.matrix.shape == (4, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def pack(tmp_path: Path) -> ModelPack:
    """The demo pack with another VAE."""
    vae = tmp_path / "diffusion" / "vae"
    vae.mkdir(parents=True)
    (vae / "model.safetensors").write_bytes(b"weights")
    return replace(read_pack(demo_pack_folder()), overrides={"diffusion": tmp_path / "diffusion"})


def test_other_weights_are_fitted_once(pack: ModelPack, tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert find_colours(pack, models, lambda: COLOURS) is COLOURS
    again = find_colours(pack, models, unexpected)
    assert again is not None
    np.testing.assert_allclose(again.matrix, COLOURS.matrix)
    (pack.part("diffusion") / "vae" / "model.safetensors").write_bytes(b"other weights")
    assert find_colours(pack, models, lambda: COLOURS) is COLOURS
    assert len(list(models.iterdir())) == 2


def test_a_node_starts_without_previews_if_they_cannot_be_fitted(pack: ModelPack, tmp_path: Path) -> None:
    def fail() -> LatentColours:
        raise RuntimeError("out of memory")

    assert find_colours(pack, tmp_path / "models", fail) is None
    (tmp_path / "file").write_text("")
    assert find_colours(pack, tmp_path / "file", lambda: COLOURS) is COLOURS, "a folder that cannot be written"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 1, "vae_sha256": "a", "matrix": [[1, 2]], "bias": [1, 2, 3]}',
     '{"format": 1, "vae_sha256": "a", "matrix": [[1, 2, NaN]], "bias": [1, 2, 3]}',
     '{"format": 1, "vae_sha256": "b", "matrix": [[1, 2, 3]], "bias": [1, 2, 3]}',
     '{"format": 0, "vae_sha256": "a", "matrix": [[1, 2, 3]], "bias": [1, 2, 3]}'],
)  # fmt: skip
def test_a_file_that_is_damaged_or_of_other_weights_is_not_used(tmp_path: Path, text: str) -> None:
    path = tmp_path / "colours.json"
    path.write_text(text)
    assert ColoursFile(path, "a").read() is None


def test_the_colours_of_the_demo_pack_are_of_its_weights() -> None:
    assert shipped_colours(read_pack(demo_pack_folder())).name == "pack-previews.json"


def test_a_preview_is_a_png_of_the_latents_size() -> None:
    png = encode_preview(COLOURS, torch.zeros(4, 8, 12))
    with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
        assert picture.size == (12, 8)
        assert picture.getpixel((0, 0)) == (128, 128, 128)


class SlowColours(LatentColours):
    """Waits for a permit before it maps."""

    gate = threading.Event()

    def pixels(self, latents: np.ndarray) -> np.ndarray:
        assert self.gate.wait(PATIENCE_S)
        return super().pixels(latents)


def test_an_image_has_one_preview_at_work_and_drops_others() -> None:
    previews, told, is_encoded = Previews(), list[tuple[int, bool]](), threading.Event()

    def report(done: int, _steps: int, png: bytes | None = None, /) -> None:
        told.append((done, png is not None))
        if png is not None:
            is_encoded.set()

    tap = previews.tap(SlowColours(COLOURS.matrix, COLOURS.bias), 1, report)
    for done in (1, 2, 3):
        tap.x0 = torch.zeros(4, 8, 8)
        tap(done, 4)
    assert told == [(2, False), (3, False)], "the first is at work, nothing waits"
    SlowColours.gate.set()
    assert is_encoded.wait(PATIENCE_S)
    previews.close()
    assert told[-1] == (1, True)


def test_a_preview_that_cannot_be_encoded_is_a_step_without_one() -> None:
    previews, told, is_told = Previews(), list[tuple[int, bytes | None]](), threading.Event()

    def report(done: int, _steps: int, png: bytes | None = None, /) -> None:
        told.append((done, png))
        is_told.set()

    tap = previews.tap(COLOURS, 1, report)
    tap.x0 = torch.zeros(3, 8, 8)
    tap(1, 4)
    assert is_told.wait(PATIENCE_S)
    previews.close()
    assert told == [(1, None)]
