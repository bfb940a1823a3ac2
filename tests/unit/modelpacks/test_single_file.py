"""Single-file checkpoints that do not fit are refused with one sentence, which says what the file is or lacks."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack, PackError, read_pack
from testing.ldm_layout import write_single_file

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pack(built_pack: Path) -> ModelPack:
    return read_pack(built_pack)


@pytest.fixture(scope="module")
def tensors(pack: ModelPack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    source = load_diffusion(pack, CPU, torch.float32)
    path = tmp_path_factory.mktemp("checkpoint") / "whole.safetensors"
    write_single_file(path, unet=source.unet, vae=source.vae, text_encoder=source.text_encoder)
    return dict(load_file(path))


@pytest.fixture
def load(pack: ModelPack, tmp_path: Path) -> Callable[[dict[str, torch.Tensor]], object]:
    """Loads a file of these tensors, with the configurations of the tiny architecture beside it."""

    def load_tensors(given: dict[str, torch.Tensor]) -> object:
        path = tmp_path / "own.safetensors"
        save_file(given, path)
        return load_at(pack, path)

    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / "own" / part).mkdir(parents=True)
        shutil.copy(pack.part("diffusion") / part / "config.json", tmp_path / "own" / part)
    return load_tensors


def load_at(pack: ModelPack, path: Path) -> object:
    return load_diffusion(replace(pack, overrides={"diffusion": path}), CPU, torch.float32)


def without(tensors: dict[str, torch.Tensor], start: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in tensors.items() if not key.startswith(start)}


def test_a_whole_file_loads_with_the_packs_tokenizer(load: Callable, tensors: dict[str, torch.Tensor]) -> None:
    assert load(tensors).tokenizer("fox").input_ids


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("model.diffusion_model.", "has no UNet"),
        ("first_stage_model.", "has no VAE"),
        ("cond_stage_model.", "has no text encoder"),
        ("model.diffusion_model.out.2.bias", "has a UNet that is not one of Stable Diffusion 1.x, or lacks weights"),
        ("first_stage_model.decoder.conv_out.bias", "has a VAE that"),
        ("cond_stage_model.transformer.text_model.final_layer_norm", "has a text encoder that"),
    ],
)
def test_a_file_that_lacks_weights_is_refused(
    load: Callable, tensors: dict[str, torch.Tensor], start: str, message: str
) -> None:
    with pytest.raises(PackError, match=f"the local file for diffusion: own.safetensors {message}"):
        load(without(tensors, start))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("conditioner.embedders.0.transformer.weight", "Stable Diffusion XL"),
        ("cond_stage_model.model.ln_final.weight", "Stable Diffusion 2"),
        ("lora_unet_mid_block.lora_down.weight", "FOXHOUND_LORAS_DIR"),
        ("anything", "is not a Stable Diffusion 1.x checkpoint"),
    ],
)
def test_a_file_of_another_kind_is_named(load: Callable, key: str, message: str) -> None:
    with pytest.raises(PackError, match=message):
        load({key: torch.zeros(1)})


def test_weights_of_another_shape_are_refused(load: Callable, tensors: dict[str, torch.Tensor]) -> None:
    key = "model.diffusion_model.time_embed.0.weight"
    with pytest.raises(PackError, match="has a UNet that"):
        load({**tensors, key: torch.cat([tensors[key]] * 2)})


def test_a_truncated_file_and_a_pickle_are_refused(
    pack: ModelPack, tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "cut.safetensors"
    save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(PackError, match="truncated"):
        load_at(pack, path)
    pickle = tmp_path / "old.ckpt"
    torch.save({"state_dict": {}}, pickle)
    with pytest.raises(PackError, match="is a pickle"):
        load_at(pack, pickle)
    with pytest.raises(PackError, match="is missing"):
        load_at(pack, tmp_path / "none.safetensors")


def test_a_vocabulary_without_its_tokenizer_is_refused(
    load: Callable, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    key = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    config = tmp_path / "own" / "text_encoder" / "config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "vocab_size": settings["vocab_size"] + 1}))
    with pytest.raises(PackError, match=r"needs a tokenizer of \d+ tokens"):
        load({**tensors, key: torch.cat([tensors[key], tensors[key][:1]])})


def test_a_broken_configuration_is_named(load: Callable, tensors: dict[str, torch.Tensor], tmp_path: Path) -> None:
    (tmp_path / "own" / "unet" / "config.json").write_text("[]")
    with pytest.raises(PackError, match=r"unet/config\.json beside it that is not a JSON object"):
        load(tensors)
