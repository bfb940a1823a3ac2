"""Pictures of every class in random colours: do CLIP and ResNet18 see in them what was asked for?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from bench.demo_pack.generation import Studio, Wish
from bench.demo_pack.loading import Pack
from bench.demo_pack.metrics import Scores, share, share_by, top_k
from bench.demo_pack.reading import clip_probabilities, network_outputs, softmax
from bench.demo_pack.table import Figure, Outcome
from bench.demo_pack.words import article, colours_of, painting

SEED = 5


@dataclass(frozen=True)
class Generated:
    """Generated pictures and what was asked for.

    Attributes:
        wanted: Index of each picture's class.
    """

    wishes: list[Wish]
    images: list[Image.Image]
    class_names: list[str]
    colours: list[str]
    wanted: list[int]


def generate_classes(pack: Pack, studio: Studio, per_class: int) -> Generated:
    """Draw `per_class` watercolors of every class; colour and seed of each are random, but fixed."""
    wishes, class_names, colours, wanted = [], [], [], []
    for index, name in enumerate(pack.classes):
        rng = np.random.default_rng([SEED, index])
        for _ in range(per_class):
            colour = str(rng.choice(colours_of(name)))
            wishes.append(Wish(painting(f"{colour} {name}"), int(rng.integers(2**31))))
            class_names.append(name)
            colours.append(colour)
            wanted.append(index)
    return Generated(wishes, studio.images("every class", wishes), class_names, colours, wanted)


def class_votes(pack: Pack, images: list[Image.Image]) -> dict[str, Scores]:
    """Ask CLIP (among plain class names) and ResNet18 for the class. **Shapes**: (N, K) each, rows sum to 1."""
    return {
        "clip": clip_probabilities(pack, images, pack.classes),
        "classifier": softmax(network_outputs(pack.classifier, pack.preprocess, images)),
    }


def right_colours(
    pack: Pack, images: list[Image.Image], class_names: list[str], colours: list[str]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell whether CLIP picks the right "a red fox" among all colours that the class can have. **Shapes**: (N,)."""
    hits = np.zeros(len(images), np.bool_)
    for name in dict.fromkeys(class_names):
        rows = [row for row, other in enumerate(class_names) if other == name]
        words = colours_of(name)
        labels = [f"{article(colour)} {colour} {name}" for colour in words]
        scores = clip_probabilities(pack, [images[row] for row in rows], labels)
        hits[rows] = top_k(scores, [words.index(colours[row]) for row in rows])
    return hits


def measure_generated(pack: Pack, generated: Generated, votes: dict[str, Scores]) -> Outcome:
    """Compare what the pack's own models see with what was asked for."""
    clip, best = (top_k(votes[voter], generated.wanted) for voter in ("clip", "classifier"))
    best_five = top_k(votes["classifier"], generated.wanted, 5)
    colour = right_colours(pack, generated.images, generated.class_names, generated.colours)
    kinds = {"clip_class": clip, "clip_colour": colour, "classifier_top1": best, "classifier_top5": best_five}
    by_class = {kind: share_by(generated.class_names, hits) for kind, hits in kinds.items()}
    worst = min(by_class["clip_class"], key=lambda name: by_class["clip_class"][name])
    figures = [
        Figure("generated: CLIP class, mean", share(clip), 0.95),
        Figure(f"generated: CLIP class, worst ({worst})", by_class["clip_class"][worst], 0.95),
        Figure("generated: CLIP colour", share(colour), 0.85),
        Figure("generated: ResNet18 top-1", share(best), 0.90),
        Figure("generated: ResNet18 top-5", share(best_five), 0.99),
    ]
    quality = {
        "images": len(generated.images),
        "clip_class_accuracy": share(clip),
        "clip_colour_accuracy": share(colour),
        "classifier_top1": share(best),
        "classifier_top5": share(best_five),
        "per_class": {name: {kind: by_class[kind][name] for kind in kinds} for name in by_class["clip_class"]},
    }
    return Outcome(figures, quality)
