"""What else a request can vary: noise scheduler, size, negative prompt; and how long it waits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image

from bench.demo_pack.generated import Generated
from bench.demo_pack.generation import DEFAULTS, Settings, Studio, Wish
from bench.demo_pack.loading import Pack
from bench.demo_pack.metrics import share, top_k
from bench.demo_pack.reading import clip_probabilities
from bench.demo_pack.table import Figure, Outcome
from bench.demo_pack.words import article, colours_of, natural_subject, painting
from demo_pack.drawing.world import BACKGROUNDS

SEED = 42
NOISE_SCHEDULERS = ("ddim", "euler", "dpmpp_2m", "pndm")
STEPS = (20, 50)
FEW_STEPS = Settings(num_inference_steps=12, noise_scheduler="dpmpp_2m")
SIZES = ((64, 64), (96, 96), (128, 192), (192, 128), (192, 192))  # height, width
NEGATIVE_SEEDS = 10
CLEAN = 0.95  # of one picture a class, CLIP recognises at least so many where a noise scheduler works
SHOWN = 8


def natural_wishes(pack: Pack) -> list[Wish]:
    """Ask for one watercolor of each class in its natural colour."""
    return [Wish(painting(natural_subject(name)), SEED + index) for index, name in enumerate(pack.classes)]


def clip_class_share(pack: Pack, images: Sequence[Image.Image], wanted: Sequence[int]) -> float:
    """Return how often CLIP picks the wanted class among all."""
    return share(top_k(clip_probabilities(pack, images, pack.classes), wanted))


def measure_noise_schedulers(pack: Pack, studio: Studio, generated: Generated) -> Outcome:
    """Compare noise schedulers on the same prompts and seeds; the sheet has a row for each and its steps."""
    figures, rows = [], []
    every = list(range(len(pack.classes)))
    quality: dict[str, float] = {}
    for name in NOISE_SCHEDULERS:
        for steps in STEPS:
            settings = Settings(num_inference_steps=steps, noise_scheduler=name)
            images = studio.images(f"{name}, {steps} steps", natural_wishes(pack), settings)
            quality[f"{name}_{steps}"] = clip_class_share(pack, images, every)
            title = f"noise schedulers: {name}, {steps} steps, CLIP class"
            figures.append(Figure(title, quality[f"{name}_{steps}"], CLEAN))
            rows.append(images[:SHOWN])
    few, many = _few_and_many(pack, studio, generated)
    figures.append(Figure("noise schedulers: dpmpp_2m at 12 steps, CLIP class", few))
    figures.append(
        Figure("noise schedulers: dpmpp_2m at 12 behind pndm at 50 steps", max(0.0, many - few), 0.03, "points", True)
    )
    return Outcome(figures, {"clip_class_accuracy": {**quality, "dpmpp_2m_12": few, "pndm_50_same_wishes": many}}, rows)


def _few_and_many(pack: Pack, studio: Studio, generated: Generated, per_class: int = 5) -> tuple[float, float]:
    """Draw the first pictures of each class once more in 12 steps; the same wishes of 50 steps are there already."""
    rows = [row for index in range(len(pack.classes)) for row in _first_rows(generated.wanted, index, per_class)]
    wanted = [generated.wanted[row] for row in rows]
    few = studio.images("dpmpp_2m, 12 steps", [generated.wishes[row] for row in rows], FEW_STEPS)
    return clip_class_share(pack, few, wanted), clip_class_share(pack, [generated.images[row] for row in rows], wanted)


def _first_rows(wanted: Sequence[int], index: int, count: int) -> list[int]:
    return [row for row, other in enumerate(wanted) if other == index][:count]


def measure_sizes(pack: Pack, studio: Studio) -> Outcome:
    """Draw one picture of each class in sizes off the native one."""
    figures, rows = [], []
    quality: dict[str, float] = {}
    for height, width in SIZES:
        images = studio.images(f"{width}x{height}", natural_wishes(pack), Settings(height=height, width=width))
        accuracy = clip_class_share(pack, images, range(len(pack.classes)))
        quality[f"{width}x{height}"] = accuracy
        figures.append(Figure(f"sizes: {width} wide, {height} high, CLIP class", accuracy))
        rows.append(images[:SHOWN])
    return Outcome(figures, {"clip_class_accuracy": quality}, rows)


def measure_negative_prompts(pack: Pack, studio: Studio) -> Outcome:
    """Forbid what the prompt asks for, or what it leaves open: CLIP should see less of it.

    The sheet pairs rows without and with the negative prompt.
    """
    places = [f"a fox {phrases[0]}" for phrases in BACKGROUNDS.values()]
    cars, flowers = (
        [f"{article(colour)} {colour} {name}" for colour in colours_of(name)] for name in ("car", "flower")
    )
    cases = (
        ("a fox in the snow", places, painting("fox", place="in the snow"), "snow"),
        ("a red car", cars, painting("red car"), "red"),
        ("a red flower", flowers, painting("flower"), "red"),
    )
    figures, rows = [], []
    quality: dict[str, dict[str, object]] = {}
    for label, labels, prompt, negative in cases:
        pair, means = [], []
        for forbidden in ("", negative):
            wishes = [Wish(prompt, SEED + row, forbidden) for row in range(NEGATIVE_SEEDS)]
            images = studio.images(f"{label}, negative prompt '{forbidden}'", wishes)
            means.append(float(np.mean(clip_probabilities(pack, images, labels)[:, labels.index(label)])))
            pair.append(images)
        change = round(means[1] - means[0], 4)
        quality[label] = {
            "prompt": prompt,
            "negative_prompt": negative,
            "without": round(means[0], 4),
            "with": round(means[1], 4),
            "change": change,
        }
        figures.append(Figure(f"negative prompt '{negative}': change of CLIP's '{label}'", change, None, "points"))
        rows += pair
    return Outcome(figures, quality, rows)


def measure_speed(pack: Pack, studio: Studio, count: int = 3) -> Outcome:
    """Time one picture alone, 50 steps of PNDM, and the loading of the pack."""
    seconds = []
    for row in range(count):
        started = time.perf_counter()
        studio.draw([Wish(painting("red fox"), SEED + row)], DEFAULTS)
        seconds.append(time.perf_counter() - started)
    image = statistics.median(seconds)
    figures = [
        Figure("speed: one picture of 50 steps", image, 3, "s", is_limit=True),
        Figure("speed: load the pack", pack.load_seconds, 5, "s", is_limit=True),
    ]
    return Outcome(
        figures, {"seconds_per_image_50_steps": round(image, 2), "load_seconds": round(pack.load_seconds, 2)}
    )
