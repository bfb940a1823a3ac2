"""A node whose diffusion model is the real code on tiny random weights; its other models answer at once."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from app.engine.engine import Engine
from app.engine.runner import Runner
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack, describe_file, read_pack
from app.services.inference.diffusion.choice import DiffusionChoice
from app.services.inference.diffusion.loading import DiffusionLoad
from app.services.inference.loaded import LoadedFacts
from app.services.inference.loading import ModelChoice
from testing.fake_models import RUNTIME, FakeModels
from testing.lora_files import CONVOLUTIONS, LINEAR, lora_tensors, write_lora
from testing.tiny import build_diffusion, write_manifest


def build_seeded(folder: Path, seed: int) -> Path:
    """Write a folder of `StableDiffusionPipeline` with tiny random weights; the same seed writes the same ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build_diffusion(folder, has_safety_checker=False)
    return folder


def as_inpainting(folder: Path, channels: int = 9) -> Path:
    """Give the UNet of a folder random weights for more input channels: those of a mask and of a masked picture."""
    config = folder / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": channels}))
    [path] = (folder / "unet").glob("*.safetensors")
    weights = load_file(path)
    first = weights["conv_in.weight"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(channels)
        more = torch.randn(len(first), channels - first.shape[1], *first.shape[2:]) * first.std()
    weights["conv_in.weight"] = torch.cat([first, more.to(first.dtype)], dim=1)
    save_file(weights, path, {"format": "pt"})
    return folder


def cut_weights(folder: Path) -> Path:
    """Cut off the end of the UNet's file."""
    [path] = (folder / "unet").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def other_weights(folder: Path) -> None:
    """Overwrite the UNet's file in place with other weights of the same size."""
    [path] = (folder / "unet").glob("*.safetensors")
    with path.open("r+b") as file, torch.random.fork_rng(devices=[]):
        other = path.with_name("other")
        save_file({key: torch.rand_like(value) for key, value in load_file(path).items()}, other, {"format": "pt"})
        file.write(other.read_bytes())
        other.unlink()


class TinyDiffusion(FakeModels):
    """Models of a node; the diffusion model is in `folder`, which has none yet."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        build_seeded(folder / "diffusion", 0)
        write_manifest(folder)
        self.tiny: ModelPack = read_pack(folder)

    def load_diffusion(self, choice: ModelChoice, facts: LoadedFacts, engine: Engine) -> Runner:
        diffusion = DiffusionChoice(
            device=torch.device("cpu"),
            dtype=torch.float32,
            runtime=RUNTIME,
            models_dir=choice.models_dir,
            loras_dir=choice.loras_dir,
            deterministic=True,
            gpu_graphs=False,
            gpu_compile=False,
            models=choice.models,
            models_bytes=choice.models_bytes,
        )
        return DiffusionLoad(diffusion, facts, engine)(self.tiny)


def models_with_few_steps(folder: Path, settings: Mapping[str, object], *, most: int = 8) -> TinyDiffusion:
    """Return models whose pack has few-step weights of its own, with these settings and at most so many steps."""
    models = TinyDiffusion(folder)
    parts = load_diffusion(models.tiny, torch.device("cpu"), torch.float32)
    tensors = lora_tensors(parts.unet, ends=(*LINEAR, *CONVOLUTIONS), form="peft", seed=9)
    file = describe_file(folder, write_lora(folder / "few-step" / "unet.safetensors", tensors))
    entry = {"path": file.path, "sha256": file.sha256, "size": file.size}
    write_manifest(folder, few_step={"file": entry, "max_num_inference_steps": most, **settings})
    models.tiny = read_pack(folder)
    models.pack = replace(models.pack, few_step=models.tiny.few_step)
    return models
