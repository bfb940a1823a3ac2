"""What is asked and what answers: full-size random weights, drawn JPEGs, and the bodies that carry them."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from bench.judging.traffic import Question
from testing.packs import write_clip, write_resnets

NUM_IMAGES = 200
NUM_LABELS = 10
WORDS = ("red", "blue", "old", "small", "wooden", "striped", "flying", "sleeping", "fox", "dog", "cat", "house", "boat")


def write_models(folder: Path) -> None:
    """Write CLIP ViT-B/32 and ResNet50 with seeded random weights, once."""
    if not (folder / "done").exists():
        write_clip(folder / "clip")
        write_resnets(folder)
        (folder / "done").touch()


def write_for_infinity(clip: Path, folder: Path) -> None:
    """Write the same CLIP as infinity has to find it, where it is missing: of weights and tokenizer, links.

    Infinity cuts texts at the config's `max_length`, which in the transformers that it needs is 20 unless the file
    says otherwise, where CLIP reads 77 tokens.
    """
    if folder.exists():
        return
    folder.mkdir()
    for file in clip.iterdir():
        if file.name == "config.json":
            (folder / file.name).write_text(json.dumps({**json.loads(file.read_text()), "max_length": 77}))
        else:
            (folder / file.name).symlink_to(file)


def draw_images() -> list[bytes]:
    """Draw JPEGs of 640 x 480 with the detail of a photograph (about 60 kB each)."""
    return list(_jpegs(np.random.default_rng(0)))


def _jpegs(rng: np.random.Generator) -> Iterator[bytes]:
    for _ in range(NUM_IMAGES):
        small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        blobs = small.resize((640, 480), Image.Resampling.BICUBIC)
        grain = rng.integers(-10, 11, (480, 640, 1))
        pixels = (np.asarray(blobs, dtype=np.int16) + grain).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "jpeg", quality=85)
        yield buffer.getvalue()


def label_sets(*, unique: bool, count: int) -> list[list[str]]:
    """Return so many label sets: four that repeat, or each label of each set new."""
    rng = np.random.default_rng(1)
    repeated = [["a photo of a " + " ".join(rng.choice(WORDS, 2)) + f" {i}" for i in range(10)] for _ in range(4)]
    if not unique:
        return [repeated[i % len(repeated)] for i in range(count)]
    numbers = iter(range(count * NUM_LABELS))
    return [
        ["a photo of a " + " ".join(rng.choice(WORDS, 2)) + f" {next(numbers)}" for _ in range(NUM_LABELS)]
        for _ in range(count)
    ]


def classify_questions(images: list[bytes]) -> list[Question]:
    """Ask for the five best classes; ours and LitServe take the same bodies."""
    return [[("/classify", json.dumps({"image_b64": _b64(image), "top_k": 5}).encode())] for image in images]


def clip_questions(images: list[bytes], labels: list[list[str]]) -> list[Question]:
    """Ask for scores; ours and LitServe take the same bodies."""
    return _clip(images, labels, lambda image, texts: [("/clip-score", {"image_b64": _b64(image), "labels": texts})])


def infinity_questions(images: list[bytes], labels: list[list[str]]) -> list[Question]:
    """Ask infinity for the embeddings that scores are made of: it has no scores, and one modality a request.

    As base64, which its documentation calls the fast form.
    """
    asked = {"model": "clip", "encoding_format": "base64"}

    def ask(image: bytes, texts: list[str]) -> list[tuple[str, dict[str, object]]]:
        url = "data:image/jpeg;base64," + _b64(image)
        return [
            ("/embeddings", {**asked, "modality": "image", "input": [url]}),
            ("/embeddings", {**asked, "modality": "text", "input": texts}),
        ]

    return _clip(images, labels, ask)


def _clip(
    images: list[bytes], labels: list[list[str]], ask: Callable[[bytes, list[str]], list[tuple[str, dict[str, object]]]]
) -> list[Question]:
    return [
        [(path, json.dumps(body).encode()) for path, body in ask(images[i % len(images)], texts)]
        for i, texts in enumerate(labels)
    ]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
