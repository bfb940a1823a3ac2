"""Stable Diffusion 1.x in full size, with random weights: a single-file checkpoint, and a LoRA of kohya's keys.

Takes about 6 GB of memory and 2.3 GB on the disk of pytest's temporary folder; part of `make test-loaders`.
"""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from app.image_spec import AdapterSet, LoraUse
from app.modelpacks.adapters import AdapterFolder, BaseModels
from app.modelpacks.loading import load_diffusion, reload_network
from app.modelpacks.pack import ModelPack, find_pack
from testing.ldm_layout import write_single_file
from testing.lora_files import CONVOLUTIONS, LINEAR, lora_tensors, write_lora
from testing.packs import UNET, VAE, VIT_L_TEXT, write_tokenizer
from testing.tiny import NOISE_SCHEDULER

pytestmark = pytest.mark.loaders

CPU = torch.device("cpu")


def filled(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights in half precision."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: torch.empty(value.shape, dtype=torch.float16).normal_(std=0.02, generator=generator)
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(weights, assign=True, strict=False)
    return model


Models = tuple[UNet2DConditionModel, AutoencoderKL, CLIPTextModel]


@pytest.fixture(scope="module")
def models() -> Models:
    with init_empty_weights(include_buffers=False):
        unet, vae = UNet2DConditionModel.from_config(UNET), AutoencoderKL.from_config(VAE)
        text_encoder = CLIPTextModel(CLIPTextConfig(**VIT_L_TEXT))
    return filled(unet), filled(vae), filled(text_encoder)


@pytest.fixture(scope="module")
def pack(models: Models, tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    unet, vae, text_encoder = models
    path = tmp_path_factory.mktemp("checkpoint") / "v1-5.safetensors"
    write_single_file(path, unet=unet, vae=vae, text_encoder=text_encoder)
    write_tokenizer(path.with_suffix("") / "tokenizer")
    return replace(find_pack("demo", Path()), overrides={"diffusion": path})


def test_a_checkpoint_loads_without_any_configuration(models: Models, pack: ModelPack) -> None:
    components = load_diffusion(pack, CPU, torch.float16)
    assert sum(parameter.numel() for parameter in components.unet.parameters()) == 859_520_964
    assert sum(parameter.numel() for parameter in components.vae.parameters()) == 83_653_863
    assert len(components.tokenizer) == 49408
    unet, vae, text_encoder = models
    for before, after in ((unet, components.unet), (vae, components.vae), (text_encoder, components.text_encoder)):
        assert all(torch.equal(after.state_dict()[key], value) for key, value in before.state_dict().items())


def test_a_lora_gives_the_weights_that_diffusers_fuses(models: Models, pack: ModelPack, tmp_path: Path) -> None:
    """Rank 16, all linear layers and convolutions of the UNet's blocks, all linear layers of the text encoder."""
    unet, vae, text_encoder = models
    tensors = lora_tensors(unet, text_encoder, rank=16, ends=(*LINEAR, *CONVOLUTIONS), alpha=8.0, size=0.05)
    write_lora(tmp_path / "style.safetensors", tensors)
    folder = AdapterFolder(tmp_path, unet=unet, text_encoder=text_encoder)
    assert folder.loras["style"].fault is None
    base = BaseModels(
        tokenizer=None,
        text_encoder=text_encoder,
        unet=unet,
        reload_unet=lambda: reload_network(pack, "unet", CPU, torch.float16),
        reload_text_encoder=lambda: reload_network(pack, "text_encoder", CPU, torch.float16),
    )
    started_at = time.monotonic()
    ours = folder.build(AdapterSet((LoraUse("style", 0.5),)), base)
    num_bytes = folder.num_bytes(AdapterSet((LoraUse("style"),)))
    print(f"built in {time.monotonic() - started_at:.1f} s, {num_bytes / 1e9:.2f} GB")  # noqa: T201
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=None,
        unet=unet,
        scheduler=PNDMScheduler.from_config(NOISE_SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(tmp_path, weight_name="style.safetensors", local_files_only=True)
    pipeline.fuse_lora(lora_scale=0.5)
    pipeline.unload_lora_weights()
    for theirs, own in ((unet, ours.unet), (text_encoder, ours.text_encoder)):
        expected = theirs.state_dict()
        for key, value in own.state_dict().items():
            torch.testing.assert_close(value.float(), expected[key].float(), rtol=2e-3, atol=2e-4, msg=key)
