"""Stage `pack`: the trained weights in the formats that diffusers, transformers and torchvision read.

All weights are float16 safetensors under plain file names. A stage that is not trained yet is written with random
weights, so that a complete pack can be written at any time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPProcessor

from demo_pack.build.classifier import load_classifier
from demo_pack.build.clip import IMAGE_SIZE, load_clip
from demo_pack.build.diffusion import load_diffusion, new_noise_scheduler
from demo_pack.build.vae import load_vae
from demo_pack.build.workdir import HELD_OUT_SEED, TORCH_SEED, TRAIN_SEED, load
from demo_pack.drawing import CLASSES

PACK = Path(__file__).parent.parent / "pack"
EDITION = "4"
LIMIT_BYTES = 48_000_000


def write_pack(workdir: Path, folder: Path = PACK, quality: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the whole pack beside `folder`, then replace `folder` by it; return the manifest.

    Raises:
        ValueError: The pack is larger than `LIMIT_BYTES`.
    """
    fresh = folder.with_name(folder.name + ".partial")
    shutil.rmtree(fresh, ignore_errors=True)
    write_diffusion(workdir, fresh / "diffusion")
    write_clip(workdir, fresh / "clip")
    write_classifier(workdir, fresh / "classifier")
    manifest = write_manifest(workdir, fresh, quality or {})
    if manifest["total_bytes"] > LIMIT_BYTES:
        raise ValueError(f"the pack holds {manifest['total_bytes']} bytes, more than {LIMIT_BYTES}")
    for path in fresh.rglob("*.safetensors"):
        path.chmod(0o644)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return manifest


def write_diffusion(workdir: Path, folder: Path) -> None:
    """A folder for `StableDiffusionPipeline.from_pretrained`."""
    model, tokenizer = load_diffusion(workdir, "guidance")
    model.unet.set_default_attn_processor()
    pipeline = StableDiffusionPipeline(
        vae=load_vae(workdir),
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=new_noise_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _copy_words(workdir, folder / "tokenizer")


def write_clip(workdir: Path, folder: Path) -> None:
    """A folder for `CLIPModel.from_pretrained` and `CLIPProcessor.from_pretrained`."""
    model, tokenizer = load_clip(workdir)
    half = [0.5, 0.5, 0.5]
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=half,
        image_std=half,
    )
    model.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    _copy_words(workdir, folder)


def _copy_words(workdir: Path, folder: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(workdir / "tokenizer" / name, folder / name)


def write_classifier(workdir: Path, folder: Path) -> None:
    """The torchvision state dict, and the classes and preprocessing that go with it."""
    folder.mkdir(parents=True)
    weights = load_classifier(workdir).state_dict()
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    save_file({name: value.contiguous() for name, value in half.items()}, folder / "model.safetensors")
    preprocessing = {
        "resize": 128, "crop": 128, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear",
    }  # fmt: skip
    config = {"architecture": "resnet18", "classes": list(CLASSES), "preprocessing": preprocessing}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_manifest(workdir: Path, folder: Path, quality: dict[str, Any]) -> dict[str, Any]:
    """`manifest.json`: files, provenance and measurements of the pack."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json")
    files = [
        {"path": path.relative_to(folder).as_posix(), "sha256": _sha256(path), "size": path.stat().st_size}
        for path in paths
    ]
    digest = hashlib.sha256("".join(f"{file['path']} {file['sha256']}\n" for file in files).encode())
    manifest = {
        "name": "demo",
        "edition": EDITION,
        "revision": digest.hexdigest()[:12],
        "licence": "Apache-2.0",
        "native_size": 128,
        "min_side": 64,
        "max_side": 192,
        "default_noise_scheduler": "dpmpp_2m",
        "weights": "float16 safetensors, plain file names (no variant)",
        "classes": list(CLASSES),
        "made": _made(workdir),
        "quality": quality,
        "total_bytes": sum(path.stat().st_size for path in paths),
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _made(workdir: Path) -> dict[str, Any]:
    """The provenance: command, seeds, and steps and minutes of each stage (no steps: random weights)."""
    stages = {}
    for name in ("vae", "decoder", "diffusion", "guidance", "clip", "classifier"):
        state = load(workdir / f"{name}.pt") or {"step": 0, "spent": 0.0}
        stages[name] = {"steps": state["step"], "minutes": round(state["spent"] / 60, 1)}
    seeds = {"training_drawings": TRAIN_SEED, "held_out_drawings": HELD_OUT_SEED, "torch": TORCH_SEED}
    how = "trained on the CPU, only on pictures drawn by demo_pack/drawing"
    return {"how": how, "command": "make demo-pack", "seeds": seeds, "stages": stages}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
