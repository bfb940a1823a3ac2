"""Textual-inversion embeddings against `load_textual_inversion` of diffusers, and with LoRAs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

from app.engine.diffusion.runner import DiffusionRunner
from app.image_spec import ImageSpec, LoraUse
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack
from app.services.inference.diffusion.model_adapters import ModelAdapters
from testing.lora_files import lora_tensors, write_lora
from tests.parity.conftest import CPU
from tests.parity.test_diffusion import PAYLOAD, assert_same_latents, final_latents, upstream
from tests.parity.test_loras import adapted, drawn

# Name to token and number of vectors; the last is a file without a token of its own.
EMBEDDINGS: Mapping[str, tuple[str, int]] = {"one": ("<one>", 1), "cat": ("<cat-toy>", 3), "plain": ("plain", 2)}


@pytest.fixture(scope="module")
def folder(tiny_pack: ModelPack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("embeddings")
    parts = load_diffusion(tiny_pack, CPU, torch.float32)
    width = parts.text_encoder.config.hidden_size
    (path / "embeddings").mkdir()
    generator = torch.Generator().manual_seed(0)
    for name, (token, number) in EMBEDDINGS.items():
        vectors = torch.randn(number, width, generator=generator) * 0.1
        key = "emb_params" if name == "plain" else token
        save_file({key: vectors[0] if number == 1 else vectors}, path / "embeddings" / f"{name}.safetensors")
    write_lora(path / "style.safetensors", lora_tensors(parts.unet, parts.text_encoder, alpha=2.0))
    return path


@pytest.fixture(scope="module")
def node(tiny_pack: ModelPack, folder: Path) -> tuple[DiffusionRunner, ModelAdapters]:
    return adapted(tiny_pack, folder)


@pytest.mark.parametrize(
    ("names", "prompt", "negative_prompt"),
    [
        (["one"], "the red <one> fox", ""),
        (["cat"], "a <cat-toy> and a <cat-toy>", "a dog"),
        (["plain"], "plain fox, unplainly", "plain"),
        (["cat", "one", "plain"], "<one> <cat-toy>", "plain"),
        (["one"], "Fox<one>dog " * 30, ""),
        (["cat"], "no token here", ""),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_latents_equal_those_of_diffusers(
    tiny_pack: ModelPack,
    folder: Path,
    node: tuple[DiffusionRunner, ModelAdapters],
    names: list[str],
    prompt: str,
    negative_prompt: str,
) -> None:
    spec = replace(
        PAYLOAD, prompt=prompt, negative_prompt=negative_prompt, embeddings=tuple(names), num_inference_steps=3
    )
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pack.part("diffusion"), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    for name in sorted(names):
        path = str(folder / "embeddings" / f"{name}.safetensors")
        pipeline.load_textual_inversion(path, token=EMBEDDINGS[name][0], local_files_only=True)
    [expected] = upstream(pipeline, spec, output_type="latent")
    assert_same_latents(drawn(node, spec), expected)


def test_without_a_token_the_bytes_are_those_without_the_embedding(
    node: tuple[DiffusionRunner, ModelAdapters],
) -> None:
    spec = replace(PAYLOAD, embeddings=("one", "cat"))
    assert drawn(node, spec).tobytes() == final_latents(node[0], PAYLOAD).tobytes()


def test_an_embedding_goes_with_a_lora(node: tuple[DiffusionRunner, ModelAdapters]) -> None:
    spec = ImageSpec("a <one> fox", num_inference_steps=3, height=64, width=48, loras=(LoraUse("style"),))
    both = replace(spec, embeddings=("one",))
    images = [drawn(node, each) for each in (spec, both, replace(both, loras=()))]
    assert all(np.abs(images[1] - other).max() > 1e-2 for other in (images[0], images[2]))


def test_the_models_own_tokens_and_vectors_are_left_alone(
    tiny_pack: ModelPack, node: tuple[DiffusionRunner, ModelAdapters]
) -> None:
    spec = replace(PAYLOAD, embeddings=("cat",))
    adapters = node[1]
    models = adapters.folder.build(spec.adapters, adapters._base)
    base = adapters._base
    assert len(models.tokenizer) == len(base.tokenizer) + 3
    assert len(base.tokenizer) == len(load_diffusion(tiny_pack, CPU, torch.float32).tokenizer)
    own = {parameter.data_ptr() for parameter in base.text_encoder.parameters()}
    added = [parameter for parameter in models.text_encoder.parameters() if parameter.data_ptr() not in own]
    assert [tuple(parameter.shape) for parameter in added] == [(3, base.text_encoder.config.hidden_size)]
