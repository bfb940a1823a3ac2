"""What a model of the settings is, from the heads of its files, or in which sentence it is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from app.modelpacks.listing import ListedModel, architecture_of, list_model, revision_of
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack, PackError, read_pack, sha256_of
from testing.ldm_layout import write_single_file
from testing.tiny_diffusion import as_inpainting, cut_weights, other_weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(built_pack: Path) -> ModelPack:
    return read_pack(built_pack)


@pytest.fixture
def folder(base: ModelPack, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base.part("diffusion"), tmp_path / "own"))


def look(path: Path, base: ModelPack, dtype: torch.dtype = torch.float32) -> ListedModel:
    return list_model("own", path, base, dtype)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_is_known_without_its_weights(folder: Path, base: ModelPack) -> None:
    change(folder / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler", prediction_type="v_prediction")
    model = look(folder, base)
    assert (model.fault, model.prediction_type) == (None, "v_prediction")
    assert model.pack is not None
    assert (model.pack.name, model.pack.native_size, model.pack.default_noise_scheduler) == ("own", 64, "ddim")
    assert (model.pack.min_side, model.pack.max_side) == (base.min_side, base.max_side)
    assert model.skeleton is not None
    parts = load_diffusion(model.pack, CPU, torch.float32)
    networks: list[Any] = [parts.unet, parts.text_encoder, parts.vae, parts.safety_checker]
    exact = sum(parameter.numel() * 4 for network in networks for parameter in network.parameters())
    assert model.skeleton.num_bytes == pytest.approx(exact, rel=0.01)
    assert model.skeleton.architecture == architecture_of(parts.unet, parts.text_encoder, parts.vae)
    assert look(folder, base, torch.bfloat16).skeleton.num_bytes * 2 == model.skeleton.num_bytes  # type: ignore[union-attr]
    assert next(model.skeleton.unet.parameters()).is_meta


def test_a_model_of_another_native_size_has_sides_of_its_own(folder: Path, base: ModelPack) -> None:
    change(folder / "unet" / "config.json", sample_size=16)
    pack = look(folder, base).pack
    assert pack is not None
    assert (pack.native_size, pack.min_side, pack.max_side) == (128, 64, 256)


def test_a_pack_and_a_single_file_are_the_same_architecture(base: ModelPack, tmp_path: Path) -> None:
    parts = load_diffusion(base, CPU, torch.float32)
    path = tmp_path / "one.safetensors"
    write_single_file(path, unet=parts.unet, vae=parts.vae, text_encoder=parts.text_encoder)
    for part in ("unet", "vae", "text_encoder"):
        shutil.copytree(base.part("diffusion") / part, tmp_path / "one" / part)
    alone, pack = look(path, base), look(base.folder, base)
    assert (alone.fault, pack.fault) == (None, None)
    assert alone.skeleton is not None
    assert pack.skeleton is not None
    assert pack.pack is not None
    assert alone.skeleton.architecture == pack.skeleton.architecture
    assert (pack.pack.name, pack.pack.revision, pack.pack.min_side) == ("own", "1", 16)
    assert alone.hash_files() == {"one.safetensors": sha256_of(path)}
    assert revision_of(alone.hash_files()) == sha256_of(path)[:16]
    assert set(pack.hash_files()) == {
        f"{name}/{'diffusion_pytorch_model' if name in ('unet', 'vae') else 'model'}.safetensors"
        for name in ("unet", "text_encoder", "vae", "safety_checker")
    }


def test_a_model_for_inpainting_is_known_by_its_channels(folder: Path, base: ModelPack) -> None:
    plain, inpainting = look(folder, base), look(as_inpainting(folder), base)
    assert plain.skeleton is not None
    assert inpainting.skeleton is not None
    assert (plain.skeleton.needs_mask, inpainting.skeleton.needs_mask) == (False, True)
    assert plain.skeleton.architecture != inpainting.skeleton.architecture
    assert inpainting.pack is not None
    parts = load_diffusion(inpainting.pack, CPU, torch.float32)
    assert inpainting.skeleton.architecture == architecture_of(parts.unet, parts.text_encoder, parts.vae)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: cut_weights(folder), "truncated"),
        (lambda folder: shutil.rmtree(folder), "nothing at its path"),
        (lambda folder: shutil.rmtree(folder / "vae"), "vae/config.json is missing"),
        (lambda folder: (folder / "model_index.json").unlink(), "model_index.json is missing"),
        (lambda folder: (folder / "model_index.json").write_text("["), "is not JSON"),
        (
            lambda folder: change(folder / "model_index.json", _class_name="StableDiffusionXLPipeline"),
            "is of another kind than Stable Diffusion 1.x",
        ),
        (lambda folder: change(folder / "unet" / "config.json", cross_attention_dim=64), "does not fit the text"),
        (lambda folder: change(folder / "unet" / "config.json", block_out_channels=[8, 32]), "weights of its"),
        (lambda folder: change(folder / "unet" / "config.json", down_block_types=["Cube"]), "configurations"),
        (lambda folder: change(folder / "unet" / "config.json", time_cond_proj_dim=8), "weights of its"),
        (lambda folder: as_inpainting(folder, channels=8), "is of a model for another task"),
        (lambda folder: os.rename(*_as_pickle(folder)), "is missing"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(
    folder: Path, base: ModelPack, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    model = look(folder, base)
    assert (model.pack, model.skeleton) == (None, None)
    assert message in str(model.fault)
    assert str(folder.parent) not in str(model.fault)


def _as_pickle(folder: Path) -> tuple[Path, Path]:
    [path] = (folder / "unet").glob("*.safetensors")
    return path, path.with_suffix(".bin")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own.ckpt", b"\x80\x04", "is a pickle"),
        ("own.safetensors", b"\x10", "truncated or not a safetensors file"),
        ("own.txt", b"", "truncated or not a safetensors file"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    base: ModelPack, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in str(look(tmp_path / name, base).fault)


@pytest.mark.parametrize(("key", "message"), [("conditioner.x", "XL"), ("lora_unet_x.alpha", "FOXHOUND_LORAS_DIR")])
def test_a_file_of_another_kind_is_named(base: ModelPack, tmp_path: Path, key: str, message: str) -> None:
    save_file({key: torch.zeros(1)}, tmp_path / "own.safetensors")
    assert message in str(look(tmp_path / "own.safetensors", base).fault)


def test_files_that_are_replaced_are_noticed(folder: Path, base: ModelPack) -> None:
    model = look(folder, base)
    model.check_unchanged()
    other_weights(folder)
    with pytest.raises(PackError, match="Restart the node"):
        model.check_unchanged()
    shutil.rmtree(folder)
    with pytest.raises(PackError):
        model.check_unchanged()
