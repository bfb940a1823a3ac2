"""The sheets that only show: classes, styles, colours, places, seeds, guidance, real drawings, failures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from bench.demo_pack.generated import Generated
from bench.demo_pack.generation import Settings, Studio, Wish
from bench.demo_pack.loading import Pack
from bench.demo_pack.metrics import Scores, failures, top_k
from bench.demo_pack.sheets import in_rows
from bench.demo_pack.variations import SEED, SHOWN, natural_wishes
from bench.demo_pack.words import colours_of, natural_colour, natural_subject, painting
from demo_pack.build.drawings import Drawings
from demo_pack.drawing.world import BACKGROUNDS, STYLES

Rows = Sequence[Sequence[Image.Image]]
COLOURED = ("fox", "car", "flower", "butterfly")
PLACED = 6
GUIDANCE = (1.0, 3.0, 7.5)
FAILURES = 16
A_CLASS = 6


def show_pages(pack: Pack, studio: Studio, generated: Generated, votes: dict[str, Scores]) -> dict[str, Rows]:
    """Draw what is not drawn yet, and give every sheet its rows."""
    names = pack.classes[:SHOWN]
    prompts = [painting(natural_subject(name)) for name in names]
    same_seed = [Wish(prompt, SEED) for prompt in prompts]
    guidance = [studio.images(f"guidance {w:g}", same_seed, Settings(guidance_scale=w)) for w in GUIDANCE]
    pages: dict[str, Rows] = {
        "classes": _classes(pack, studio, generated),
        "styles": [_styled(studio, names, phrases[0]) for phrases in STYLES.values()],
        "colours": [_coloured(studio, name) for name in COLOURED],
        "backgrounds": [_placed(studio, pack.classes[:PLACED], phrases[0]) for phrases in BACKGROUNDS.values()],
        "same-seed": [guidance[-1]],
        "guidance": guidance,
    }
    if failed := _failures(generated, votes):
        pages["failures"] = failed
    return pages


def drawings_page(drawings: Drawings, classes: Sequence[str], a_class: int = A_CLASS) -> Rows:
    """Show real drawings, a row a class, for comparison."""
    names = np.array(drawings.class_names)
    rows = [[Image.fromarray(drawings.images[k]) for k in np.flatnonzero(names == name)[:a_class]] for name in classes]
    return [row for row in rows if row]


def _classes(pack: Pack, studio: Studio, generated: Generated) -> Rows:
    """A row a class: its natural colour first, then the first pictures in other colours."""
    natural = studio.images("natural colours", natural_wishes(pack))
    rows = [[image] for image in natural]
    seen = [{natural_colour(name)} for name in pack.classes]
    for image, index, colour in zip(generated.images, generated.wanted, generated.colours, strict=True):
        if colour not in seen[index] and len(rows[index]) < A_CLASS:
            rows[index].append(image)
            seen[index].add(colour)
    return rows


def _styled(studio: Studio, names: Sequence[str], style: str) -> list[Image.Image]:
    wishes = [Wish(painting(natural_subject(name), style), SEED + row) for row, name in enumerate(names)]
    return studio.images(style, wishes)


def _coloured(studio: Studio, name: str) -> list[Image.Image]:
    wishes = [Wish(painting(f"{colour} {name}"), SEED) for colour in colours_of(name)]
    return studio.images(f"colours, {name}", wishes)


def _placed(studio: Studio, names: Sequence[str], place: str) -> list[Image.Image]:
    wishes = [Wish(painting(natural_subject(name), place=place), SEED + row) for row, name in enumerate(names)]
    return studio.images(place, wishes)


def _failures(generated: Generated, votes: dict[str, Scores]) -> Rows:
    """Show the pictures in which a model sees another class than the prompt's, worst first."""
    rows = np.arange(len(generated.wanted))
    right = np.stack([top_k(scores, generated.wanted) for scores in votes.values()])
    belief = np.stack([scores[rows, generated.wanted] for scores in votes.values()])
    return in_rows([generated.images[index] for index in failures(right, belief, FAILURES)], SHOWN)
