"""Which CLIP cosine tells a copy of a picture from another picture of its prompt: measured on the shipped demo pack.

Pictures of one prompt and different seeds are independent; a picture with a few changed pixels, or saved as JPEG, is a
copy. The threshold is to lie between the closest of the first and the least close of the second. The pack's manifest
holds it for the reports on datasets.

`python -m bench.leakage` prints a table and a line of JSON; exit code 1 when the manifest's threshold does not tell
them apart. `--write` puts the middle of the two into the manifest.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from app.modelpacks.pack import MANIFEST, demo_pack_folder, find_pack
from bench.demo_pack.generation import Settings, Studio, Wish
from bench.demo_pack.loading import Pack, load_pack
from bench.demo_pack.words import colours_of, painting

SEED = 1000
BATCH = 50
# As in the README's dataset, through the pack's own noise scheduler.
SETTINGS = Settings(num_inference_steps=25, noise_scheduler="dpmpp_2m")
README_PROMPTS = ("a watercolor painting of a red fox", "a watercolor painting of a golden retriever")
NUM_CHANGED_PIXELS, JPEG_QUALITY = 20, 95

Floats = NDArray[np.float32]


@torch.inference_mode()
def embeddings(pack: Pack, images: Sequence[Image.Image]) -> Floats:
    """Return CLIP's embeddings. **Shapes**: (N, D), rows of length 1."""
    parts = []
    for start in range(0, len(images), BATCH):
        inputs = pack.processor(images=list(images[start : start + BATCH]), return_tensors="pt")
        found = pack.clip.get_image_features(**inputs)
        vectors = getattr(found, "pooler_output", found).float()
        parts.append(torch.nn.functional.normalize(vectors, dim=1).numpy())
    return np.concatenate(parts)


def with_changed_pixels(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a copy of which a few pixels have another, random colour."""
    pixels = np.array(image)
    rows, columns = (rng.integers(0, side, NUM_CHANGED_PIXELS) for side in pixels.shape[:2])
    pixels[rows, columns] = rng.integers(0, 256, (NUM_CHANGED_PIXELS, 3))
    return Image.fromarray(pixels)


def as_jpeg(image: Image.Image) -> Image.Image:
    """Return a copy as it comes back from a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file).convert("RGB")


def closest_of_independent(vectors: Floats) -> Floats:
    """Return each row's largest cosine with another row. **Shapes**: (N, D) to (N,), N >= 2."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    largest: Floats = cosines.max(axis=1)
    return largest


def measure(pack: Pack, studio: Studio, prompts: Sequence[str], per_prompt: int) -> dict[str, Any]:
    """Draw and compare; returns the cosines' extremes for each prompt."""
    rng, figures = np.random.default_rng(SEED), {}
    for prompt in prompts:
        images = studio.images(prompt, [Wish(prompt, SEED + index) for index in range(per_prompt)], SETTINGS)
        vectors = embeddings(pack, images)
        copies = {
            "changed_pixels_min": [with_changed_pixels(image, rng) for image in images],
            "jpeg_min": [as_jpeg(image) for image in images],
        }
        least = {name: float((vectors * embeddings(pack, some)).sum(axis=1).min()) for name, some in copies.items()}
        closest = closest_of_independent(vectors)
        quantiles = {"independent_median": float(np.median(closest)), "independent_max": float(closest.max())}
        figures[prompt] = {name: round(value, 5) for name, value in {**quantiles, **least}.items()}
    return figures


def write(folder: Path, near_duplicates: dict[str, float]) -> None:
    """Put the threshold and what it rests on into the pack's manifest."""
    path = folder / MANIFEST
    manifest = {**json.loads(path.read_text()), "near_duplicates": near_duplicates}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(partial, path)


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.leakage")
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="where pictures are kept")
    parser.add_argument("--images", type=int, default=100, help="pictures of each of the README's prompts")
    parser.add_argument("--others", type=int, default=20, help="pictures of a prompt for each class of the pack")
    parser.add_argument("--classes", type=int, default=100, help="only so many classes, the pack's first")
    parser.add_argument("--write", action="store_true", help="also into the manifest")
    arguments = parser.parse_args()
    pack = load_pack(demo_pack_folder())
    studio = Studio(pack, arguments.workdir / "report" / "images")
    figures = measure(pack, studio, README_PROMPTS, arguments.images)
    others = [painting(f"{colours_of(name)[0]} {name}") for name in pack.classes[: arguments.classes]]
    figures |= measure(pack, studio, [one for one in others if one not in figures], arguments.others)
    independent = max(row["independent_max"] for row in figures.values())
    copies = min(min(row["changed_pixels_min"], row["jpeg_min"]) for row in figures.values())
    middle = round((independent + copies) / 2, 4)
    if arguments.write:
        write(demo_pack_folder(), {"cosine": middle, "independent_max": independent, "copies_min": copies})
    used = find_pack("demo", Path()).near_duplicate_cosine
    names = ("independent_median", "independent_max", "changed_pixels_min", "jpeg_min")
    print("| prompt | " + " | ".join(names) + " |\n| --- |" + " --- |" * len(names))
    for prompt, row in figures.items():
        print(f"| {prompt} | " + " | ".join(f"{row[name]:.5f}" for name in names) + " |")
    print(f"independent {independent:.5f} < threshold {used} <= copies {copies:.5f}; their middle {middle}")
    print(json.dumps({"bench": "leakage", "revision": pack.revision, "threshold": used, "figures": figures}))
    return int(not independent < used <= copies)


if __name__ == "__main__":
    sys.exit(main())
