"""Stage `report`: measure the shipped weights, draw sample sheets, and note the figures in the manifest.

Reads the pack through the upstream libraries, in float32 on the CPU, just as a user would.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torchvision.models import ResNet, resnet18
from transformers import CLIPModel, CLIPProcessor

from app.modelpacks.demo.build.drawings import Drawings, draw_held_out, load_set
from app.modelpacks.demo.drawing import CLASSES
from app.modelpacks.demo.drawing.world import COLOURS

IMAGES_PER_CLASS = 5
PRACTICAL = ("a watercolor painting of a red fox", "a watercolor painting of a golden retriever")
NATURAL = {
    "fox": "red", "dog": "golden", "cat": "grey", "rabbit": "brown", "bird": "blue", "fish": "orange",
    "butterfly": "orange", "flower": "pink", "tree": "green", "house": "yellow", "boat": "red", "car": "blue",
}  # fmt: skip


@dataclass(frozen=True)
class Pack:
    """The loaded pack."""

    pipeline: StableDiffusionPipeline
    clip: CLIPModel
    processor: CLIPProcessor
    classifier: ResNet


def load_pack(folder: Path) -> Pack:
    """Load every part of the pack in float32."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "diffusion", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    classifier = resnet18(weights=None, num_classes=len(CLASSES))
    weights = load_file(folder / "classifier" / "model.safetensors")
    classifier.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in weights.items()})
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    return Pack(pipeline, clip, CLIPProcessor.from_pretrained(folder / "clip"), classifier.eval())


@torch.inference_mode()
def reconstruct(pack: Pack, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures through the autoencoder and back. **Shapes**: (N, 3, H, W), -1 to 1."""
    posterior = pack.pipeline.vae.encode(pixels).latent_dist
    given: torch.Tensor = pack.pipeline.vae.decode(posterior.mean).sample
    return given.clamp(-1, 1)


def psnr_by_style(pack: Pack, drawings: Drawings, count: int = 400) -> dict[str, float]:
    """Mean reconstruction PSNR in dB, overall and for each style."""
    values = []
    for start in range(0, count, 25):
        pixels = drawings.batch(np.arange(start, start + 25))
        error = ((reconstruct(pack, pixels) - pixels) / 2).square().mean(dim=(1, 2, 3))
        values.append(-10 * error.log10())
    every = torch.cat(values).numpy()
    styles = np.array(drawings.styles[:count])
    figures = {style: round(float(every[styles == style].mean()), 2) for style in sorted(set(styles))}
    return {"overall": round(float(every.mean()), 2), **figures}


@torch.inference_mode()
def clip_choices(pack: Pack, images: list[Image.Image], labels: list[str]) -> list[str]:
    """CLIP's most likely label for each image."""
    chosen: list[str] = []
    for start in range(0, len(images), 50):
        inputs = pack.processor(text=labels, images=images[start : start + 50], padding=True, return_tensors="pt")
        best = pack.clip(**inputs).logits_per_image.argmax(dim=1)
        chosen.extend(labels[int(index)] for index in best)
    return chosen


@torch.inference_mode()
def classifier_choices(pack: Pack, images: list[Image.Image]) -> list[str]:
    """ResNet18's class for each image."""
    chosen: list[str] = []
    for start in range(0, len(images), 50):
        pixels = np.stack([np.asarray(image.resize((128, 128))) for image in images[start : start + 50]])
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        chosen.extend(CLASSES[int(index)] for index in pack.classifier(tensor).argmax(dim=1))
    return chosen


def share(given: list[str], wanted: list[str]) -> float:
    """The share of equal entries, 0 to 1."""
    return round(float(np.mean([a == b for a, b in zip(given, wanted, strict=True)])), 4)


def generate(pack: Pack, prompts: list[str], seed: int) -> list[Image.Image]:
    """One image a prompt, 50 PNDM steps at guidance 7.5, seeds counting up from `seed`."""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
    result = pack.pipeline(prompts, height=128, width=128, num_inference_steps=50, generator=generators)
    images: list[Image.Image] = result.images
    return images


def sheet(images: list[Image.Image], columns: int, path: Path) -> None:
    """Save images as one picture, row by row."""
    rows, step = -(-len(images) // columns), 132
    page = Image.new("RGB", (columns * step, rows * step), "white")
    for index, image in enumerate(images):
        page.paste(image, (index % columns * step + 2, index // columns * step + 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


def measure_drawings(pack: Pack, drawings: Drawings) -> dict[str, Any]:
    """Figures on held-out drawings."""
    images = [Image.fromarray(pixels) for pixels in drawings.images[:500]]
    wanted, colours = drawings.class_names[:500], drawings.colours[:500]
    with_colour = [f"a photo of a {colour}" for colour in COLOURS]
    return {
        "vae_psnr_db": psnr_by_style(pack, drawings),
        "clip_class_accuracy": share(clip_choices(pack, images, list(CLASSES)), wanted),
        "clip_colour_accuracy": share(
            clip_choices(pack, images, with_colour), [f"a photo of a {colour}" for colour in colours]
        ),
        "classifier_top1": share(classifier_choices(pack, images), wanted),
    }


def measure_generated(pack: Pack, sheets: Path) -> dict[str, Any]:
    """Figures on generated images, `IMAGES_PER_CLASS` for each class in natural and in other colours."""
    rng, images, wanted, hits = np.random.default_rng(5), [], [], []
    for row, name in enumerate(CLASSES):
        others = rng.choice([colour for colour in COLOURS if colour not in ("golden", NATURAL[name])], 2, replace=False)
        colours = [NATURAL[name]] * (IMAGES_PER_CLASS - 2) + [str(colour) for colour in others]
        made = generate(pack, [f"a watercolor painting of a {colour} {name}" for colour in colours], 100 * row)
        for image, colour in zip(made, colours, strict=True):
            (best,) = clip_choices(pack, [image], [f"{word} {name}" for word in COLOURS])
            hits.append(best == f"{colour} {name}")
        images.extend(made)
        wanted.extend([name] * len(made))
    sheet(images, IMAGES_PER_CLASS, sheets / "classes.png")
    return {
        "images": len(images),
        "clip_class_accuracy": share(clip_choices(pack, images, list(CLASSES)), wanted),
        "clip_colour_accuracy": round(float(np.mean(hits)), 4),
        "classifier_top1": share(classifier_choices(pack, images), wanted),
    }


def measure_practical(pack: Pack, sheets: Path) -> dict[str, Any]:
    """The practical's two prompts: who recognises them, and the seconds that one image takes."""
    images = [image for prompt in PRACTICAL for image in generate(pack, [prompt] * 8, 42)]
    sheet(images, 8, sheets / "practical.png")
    wanted = ["fox"] * 8 + ["dog"] * 8
    started = time.perf_counter()
    generate(pack, [PRACTICAL[0]], 42)
    seconds = round(time.perf_counter() - started, 2)
    return {
        "clip_class_accuracy": share(clip_choices(pack, images, list(CLASSES)), wanted),
        "clip_names_the_prompt": share(
            clip_choices(pack, images, ["red fox", "golden retriever"]), ["red fox"] * 8 + ["golden retriever"] * 8
        ),
        "classifier_top1": share(classifier_choices(pack, images), wanted),
        "seconds_per_image_50_steps": seconds,
    }


def report(folder: Path, workdir: Path, sheets: Path) -> None:
    """Print every figure, write the sheets, and put the figures into the pack's manifest."""
    draw_held_out(workdir)
    started = time.perf_counter()
    pack, held_out = load_pack(folder), load_set(workdir, "held_out")
    seconds = round(time.perf_counter() - started, 2)
    quality = {
        "load_seconds": seconds,
        "held_out_drawings": measure_drawings(pack, held_out),
        "practical_prompts": measure_practical(pack, sheets),
        "generated": measure_generated(pack, sheets),
    }
    rebuilt = (reconstruct(pack, held_out.batch(np.arange(16))) + 1) * 127.5
    originals = [Image.fromarray(pixels) for pixels in held_out.images[:16]]
    copies = [Image.fromarray(p.permute(1, 2, 0).round().byte().numpy()) for p in rebuilt]
    sheet([*originals[:8], *copies[:8], *originals[8:], *copies[8:]], 8, sheets / "autoencoder.png")
    sys.stdout.write(json.dumps(quality, indent=2) + "\n")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "quality": quality}, indent=2) + "\n")
