"""A single-file checkpoint in the original key layout against diffusers' own loading of it, and against its source."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from app.modelpacks.loading import DiffusionComponents, load_diffusion, reload_network
from app.modelpacks.pack import ModelPack
from testing.ldm_layout import write_single_file
from tests.parity.conftest import CPU

PARTS = ("text_encoder", "unet", "vae")


@pytest.fixture(scope="module")
def source(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, torch.float32)


@pytest.fixture(scope="module")
def single_file(tiny_pack: ModelPack, source: DiffusionComponents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pack's pipeline as one file, with the configurations of its architecture beside it."""
    path = tmp_path_factory.mktemp("checkpoints") / "tiny.safetensors"
    write_single_file(path, unet=source.unet, vae=source.vae, text_encoder=source.text_encoder)
    for part in (*PARTS, "tokenizer", "scheduler"):
        shutil.copytree(
            tiny_pack.part("diffusion") / part,
            path.with_suffix("") / part,
            ignore=shutil.ignore_patterns("*.safetensors"),
        )
    return path


def loaded(pack: ModelPack, path: Path, dtype: torch.dtype = torch.float32) -> DiffusionComponents:
    return load_diffusion(replace(pack, overrides={"diffusion": path}), CPU, dtype)


def test_the_weights_are_those_that_diffusers_reads(tiny_pack: ModelPack, single_file: Path, tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(tiny_pack.part("diffusion"), config, ignore=shutil.ignore_patterns("*.safetensors"))
    pipeline = StableDiffusionPipeline.from_single_file(
        single_file, config=str(config), local_files_only=True, safety_checker=None
    )
    ours = loaded(tiny_pack, single_file)
    for part in PARTS:
        theirs, own = getattr(pipeline, part).state_dict(), getattr(ours, part).state_dict()
        assert theirs.keys() == own.keys()
        assert all(torch.equal(own[key], theirs[key]) for key in theirs), part


def test_the_components_are_those_of_the_folder(
    tiny_pack: ModelPack, source: DiffusionComponents, single_file: Path
) -> None:
    ours = loaded(tiny_pack, single_file)
    for part in PARTS:
        before, after = getattr(source, part), getattr(ours, part)
        assert all(torch.equal(after.state_dict()[key], value) for key, value in before.state_dict().items())
        assert not after.training
    assert ours.unet.config.block_out_channels == source.unet.config.block_out_channels
    assert ours.noise_scheduler_config == source.noise_scheduler_config
    assert ours.safety_checker is None
    ids = ours.tokenizer("the red fox").input_ids
    assert ids == source.tokenizer("the red fox").input_ids
    with torch.inference_mode():
        tokens = torch.tensor([ids])
        assert torch.equal(ours.text_encoder(tokens)[0], source.text_encoder(tokens)[0])


def test_the_number_format_is_the_one_asked_for(tiny_pack: ModelPack, single_file: Path) -> None:
    ours = loaded(tiny_pack, single_file, torch.bfloat16)
    assert {getattr(ours, part).dtype for part in PARTS} == {torch.bfloat16}


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_one_model_can_be_loaded_again(
    tiny_pack: ModelPack, source: DiffusionComponents, single_file: Path, part: str
) -> None:
    again = reload_network(replace(tiny_pack, overrides={"diffusion": single_file}), part, CPU, torch.float32)
    expected = getattr(source, part).state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(again.state_dict()[key], value) for key, value in expected.items())
