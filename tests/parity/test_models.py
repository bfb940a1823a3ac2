"""Several models on a node: each draws as a node of its own and as diffusers' pipeline, in any company.

Tolerance to diffusers: that of `test_diffusion`. Against ourselves: none. The needle: an image of each kind, of each
model, between images of all other kinds and models, whose rows come and go, has the bytes that it has alone.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from app.engine.diffusion.runner import DiffusionRunner
from app.engine.engine import Engine
from app.image_spec import ImageSpec, LoraUse, PictureRef
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack, find_pack
from app.services.inference.diffusion.rendering import SourcePictures
from app.services.inference.loading import ModelChoice
from app.services.inference.service import Inference
from app.storage.image_formats import decode_image
from testing.lora_files import lora_tensors, write_lora
from testing.tiny_diffusion import TinyDiffusion, build_seeded
from testing.waiting import wait_until
from tests.parity.conftest import CPU
from tests.parity.test_diffusion import (
    assert_close,
    assert_same_latents,
    final_latents,
    generate,
    make_runner,
    upstream,
)

SPEC = ImageSpec("the red fox", num_inference_steps=4, width=64, height=64, seed=42, scheduler="euler_a")
PICTURE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
MASK = np.pad(np.full((64, 32), 255, np.uint8), ((0, 0), (0, 32)))
OTHERS = ("second", "third")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: build_seeded(root / name, 1 + index) for index, name in enumerate(OTHERS)}


@pytest.fixture(scope="module")
def loras(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loras")
    parts = load_diffusion(pack_of(folders["second"]), CPU, torch.float32)
    write_lora(path / "style.safetensors", lora_tensors(parts.unet, parts.text_encoder, alpha=4.0))
    return path


Served = tuple[Engine, Inference]


@pytest.fixture(scope="module")
def node(folders: Mapping[str, Path], loras: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node with room for all of its models."""
    with served(folders, loras, tmp_path_factory.mktemp("own")) as node:
        yield node


@contextmanager
def served(models: Mapping[str, Path], loras: Path | None, folder: Path, models_bytes: int = 10**9) -> Iterator[Served]:
    choice = ModelChoice(
        pack="demo",
        models_dir=folder / "packs",
        overrides={},
        device="cpu",
        dtype="float32",
        deterministic=None,
        gpu_graphs=False,
        gpu_compile=False,
        num_threads=1,
        max_queue_size=64,
        loras_dir=loras,
        models=models,
        models_bytes=models_bytes,
    )
    engine, inference = TinyDiffusion(folder).start(choice)
    try:
        wait_until(lambda: engine.status()["diffusion"].state == "ready")
        yield engine, inference
    finally:
        engine.close()
        inference.close()


def pack_of(folder: Path) -> ModelPack:
    """The pack of a node whose default model is the folder's."""
    return replace(find_pack("demo", Path()), overrides={"diffusion": folder})


def with_picture(spec: ImageSpec, *, masked: bool = False) -> tuple[ImageSpec, SourcePictures]:
    spec = replace(spec, init_image=PictureRef("0"), strength=0.6, mask=PictureRef("1") if masked else None)
    return spec, SourcePictures(PICTURE, MASK if masked else None)


async def draw(inference: Inference, spec: ImageSpec, pictures: SourcePictures | None = None) -> np.ndarray:
    made = await inference.render(spec, pictures=pictures)
    return np.asarray(decode_image(made.data, max_bytes=10**7, max_pixels=10**7))


def alone(folder: Path) -> DiffusionRunner:
    return make_runner(load_diffusion(pack_of(folder), CPU, torch.float32))


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("scheduler", ["pndm", "ddim", "euler_a", "dpmpp_2m_karras", "lcm"])
def test_a_model_draws_as_a_node_of_its_own_and_as_the_pipeline(
    node: Served, folders: Mapping[str, Path], name: str, scheduler: str
) -> None:
    spec = replace(SPEC, model=name, scheduler=scheduler)
    runner, own = alone(folders[name]), replace(spec, model=None)
    pipeline = StableDiffusionPipeline.from_pretrained(folders[name], local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    assert_same_latents(final_latents(runner, own), upstream(pipeline, own, output_type="latent")[0])
    pixels = asyncio.run(draw(node[1], spec))
    assert pixels.tobytes() == _pixels(runner, own).tobytes()
    assert_close(pixels, upstream(pipeline, own)[0])
    assert pixels.tobytes() != asyncio.run(draw(node[1], own)).tobytes(), "the default one has other weights"


def _pixels(runner: DiffusionRunner, spec: ImageSpec) -> np.ndarray:
    return generate(runner, spec)[0].pixels


def test_needles_have_their_bytes_in_any_company(
    node: Served, folders: Mapping[str, Path], loras: Path, tmp_path: Path
) -> None:
    """From prompts, from images, with masks and LoRAs, of three models, all at once and each on a node of its own."""
    kinds: dict[tuple[str | None, str], tuple[ImageSpec, SourcePictures | None]] = {}
    for model in (None, *OTHERS):
        spec = replace(SPEC, model=model)
        kinds[model, "plain"] = (spec, None)
        kinds[model, "unguided"] = (replace(spec, guidance_scale=1.0, num_inference_steps=7), None)
        kinds[model, "image"] = with_picture(replace(spec, scheduler="ddim"))
        kinds[model, "mask"] = with_picture(spec, masked=True)
        kinds[model, "lora"] = (replace(spec, loras=(LoraUse("style", 0.7),)), None)
        kinds[model, "lora and image"] = with_picture(replace(spec, loras=(LoraUse("style", -0.4),)))

    async def together() -> list[np.ndarray]:
        drawn = [draw(node[1], *kind) for kind in kinds.values()]
        company = [
            draw(node[1], replace(spec, seed=seed), pictures) for seed in (1, 2) for spec, pictures in kinds.values()
        ]
        return (await asyncio.gather(*drawn, *company))[: len(drawn)]

    found = dict(zip(kinds, asyncio.run(together()), strict=True))
    assert len({pixels.tobytes() for pixels in found.values()}) == len(kinds)
    for key, (spec, pictures) in kinds.items():
        again = asyncio.run(draw(node[1], spec, pictures))
        assert again.tobytes() == found[key].tobytes(), key
    with served({"second": folders["second"]}, loras, tmp_path) as (_, inference):
        for key, (spec, pictures) in kinds.items():
            if spec.model == "second":
                fresh = asyncio.run(draw(inference, spec, pictures))
                assert fresh.tobytes() == found[key].tobytes(), key


def test_a_model_evicted_and_loaded_again_draws_the_same(
    folders: Mapping[str, Path], loras: Path, tmp_path: Path
) -> None:
    size = sum(parameter.numel() * 4 for parameter in _parameters(folders["second"]))
    specs = [replace(SPEC, model=name, loras=loras) for name in OTHERS for loras in ((), (LoraUse("style"),))]

    async def rounds(inference: Inference) -> list[list[bytes]]:
        return [[(await draw(inference, spec)).tobytes() for spec in specs] for _ in range(3)]

    with served(folders, loras, tmp_path, models_bytes=int(1.5 * size)) as (_, inference):
        first, *others = asyncio.run(rounds(inference))
        assert others == [first, first]
        assert len(set(first)) == len(specs)
        assert inference.models.peak_bytes <= 1.5 * size


def _parameters(folder: Path) -> Iterator[torch.nn.Parameter]:
    parts = load_diffusion(pack_of(folder), CPU, torch.float32)
    for network in (parts.unet, parts.text_encoder, parts.vae):
        yield from network.parameters()


def test_v_prediction_is_the_models_own(tmp_path: Path) -> None:
    folder = build_seeded(tmp_path / "v", 5)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("{", '{"prediction_type": "v_prediction",', 1))
    with served({"v": folder}, None, tmp_path / "own") as (_, inference):
        pixels = asyncio.run(draw(inference, replace(SPEC, model="v", scheduler="ddim")))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    own = replace(SPEC, scheduler="ddim")
    settings = dict(load_diffusion(pack_of(folder), CPU, torch.float32).noise_scheduler_config)
    assert settings["prediction_type"] == "v_prediction"
    assert_close(pixels, upstream(pipeline, own, config=settings)[0])
