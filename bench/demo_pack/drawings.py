"""Figures on drawings that no training saw: retrieval and zero-shot by CLIP, ResNet18, and the autoencoder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.demo_pack.generated import class_votes, right_colours
from bench.demo_pack.loading import Pack
from bench.demo_pack.metrics import fit_matrix, recall_at_1, share, strict_ceiling, top_k
from bench.demo_pack.reading import clip_similarity
from bench.demo_pack.table import Figure, Outcome
from demo_pack.build.drawings import Drawings, Order, draw_held_out, draw_set, load_set
from demo_pack.build.workdir import HELD_OUT_SEED
from demo_pack.drawing import draw
from demo_pack.drawing.captions import Said, said

GROUP = 100
RECONSTRUCTED = 400
# The training set is of seed 1, the held-out one of seed 2, the judge's of seed 3.
MORE_SEEDS = (4, 5, 6, 7)
MORE_COUNT = 1000


def held_out_drawings(workdir: Path) -> Drawings:
    """Draw the 1,000 held-out drawings, unless they are there."""
    with redirect_stdout(sys.stderr):  # the build tells its progress on standard output
        draw_held_out(workdir)
    return load_current(workdir, "held_out", HELD_OUT_SEED)


def load_current(workdir: Path, name: str, seed: int) -> Drawings:
    """Load a drawn set.

    Raises:
        ValueError: It was drawn by another edition of the drawing code; whoever made it must remove it.
    """
    drawings = load_set(workdir, name)
    if not np.array_equal(drawings.images[0], np.asarray(draw(seed, 0).image)):
        raise ValueError(f"{workdir / name}.npy is of another edition of the drawings: remove it, and its .json")
    return drawings


def drawings_of(workdir: Path, processes: int, class_names: Sequence[str], count: int) -> dict[str, list[Image.Image]]:
    """Return `count` drawings of each class that no training saw, in any style and colour.

    Raises:
        ValueError: All unseen seeds together hold fewer of a class.
    """
    found: dict[str, list[Image.Image]] = {name: [] for name in class_names}
    _collect(found, held_out_drawings(workdir), count)
    for seed in MORE_SEEDS:
        if all(len(images) >= count for images in found.values()):
            return found
        with redirect_stdout(sys.stderr):
            draw_set(workdir, f"unseen_{seed}", Order(seed, MORE_COUNT), processes)
        _collect(found, load_current(workdir, f"unseen_{seed}", seed), count)
    if short := [name for name, images in found.items() if len(images) < count]:
        raise ValueError(f"fewer than {count} unseen drawings of {', '.join(short)}")
    return found


def _collect(found: dict[str, list[Image.Image]], drawings: Drawings, count: int) -> None:
    for name, pixels in zip(drawings.class_names, drawings.images, strict=True):
        if name in found and len(found[name]) < count:
            found[name].append(Image.fromarray(pixels))


def fullest(captions: Sequence[str]) -> str:
    """Choose the caption that states most; the longest of several."""
    return max(captions, key=lambda text: (sum(word is not None for word in astuple(said(text))), len(text)))


def measure_drawings(pack: Pack, drawings: Drawings, count: int) -> Outcome:
    """Measure CLIP and ResNet18 on the first `count` held-out drawings."""
    images = [Image.fromarray(pixels) for pixels in drawings.images[:count]]
    names, colours = drawings.class_names[:count], drawings.colours[:count]
    wanted = [pack.classes.index(name) if name in pack.classes else -1 for name in names]
    votes = class_votes(pack, images)
    clip, best = (share(top_k(votes[voter], wanted)) for voter in ("clip", "classifier"))
    colour = share(right_colours(pack, images, names, colours))
    recall = _recall(pack, drawings, images)
    figures = [
        Figure("drawings: caption to image, recall@1 of 100, fits the caption", recall["fits_caption"], 0.80),
        Figure("drawings: caption to image, recall@1 of 100, the very drawing", recall["very_drawing"]),
        Figure("drawings: ceiling of the latter, as captions coincide", recall["very_drawing_ceiling"]),
        Figure("drawings: CLIP zero-shot class", clip, 0.98),
        Figure("drawings: CLIP zero-shot colour", colour),
        Figure("drawings: ResNet18 top-1", best, 0.98),
    ]
    quality = {
        "drawings": count,
        "caption_recall_at_1_of_100": recall,
        "clip_class_accuracy": clip,
        "clip_colour_accuracy": colour,
        "classifier_top1": best,
    }
    return Outcome(figures, quality)


def _recall(pack: Pack, drawings: Drawings, images: list[Image.Image]) -> dict[str, float]:
    """Search each drawing by its fullest caption among the drawings of its group."""
    very, fitting, ceilings = [], [], []
    for start in range(0, len(images), GROUP):
        rows = range(start, min(start + GROUP, len(images)))
        captions = [fullest(drawings.captions[row]) for row in rows]
        shown = [_shown(drawings, row) for row in rows]
        matrix = fit_matrix([said(text) for text in captions], shown)
        similarity = clip_similarity(pack, [images[row] for row in rows], captions)
        is_very, does_fit = recall_at_1(similarity, matrix)
        very.append(is_very)
        fitting.append(does_fit)
        ceilings.append(strict_ceiling(matrix))
    return {
        "fits_caption": share(np.concatenate(fitting)),
        "very_drawing": share(np.concatenate(very)),
        "very_drawing_ceiling": round(float(np.mean(ceilings)), 4),
    }


def _shown(drawings: Drawings, row: int) -> Said:
    return Said(drawings.class_names[row], drawings.colours[row], drawings.styles[row], drawings.backgrounds[row])


def measure_autoencoder(pack: Pack, drawings: Drawings, count: int) -> Outcome:
    """Measure the reconstruction PSNR, for each style too; the sheet shows drawings over their reconstructions."""
    count = min(count, RECONSTRUCTED)
    values, copies = [], []
    for start in range(0, count, 25):
        pixels = drawings.batch(np.arange(start, min(start + 25, count)))
        given = _reconstruct(pack, pixels)
        values.append(-10 * ((given - pixels) / 2).square().mean(dim=(1, 2, 3)).log10())
        if start == 0:
            copies = [Image.fromarray(picture.numpy()) for picture in _as_bytes(given[:16])]
    psnr = torch.cat(values).numpy()
    styles = np.array(drawings.styles[:count])
    by_style = {style: round(float(psnr[styles == style].mean()), 2) for style in sorted(set(styles.tolist()))}
    overall = round(float(psnr.mean()), 2)
    originals = [Image.fromarray(pixels) for pixels in drawings.images[:16]]
    rows = [originals[:8], copies[:8], originals[8:], copies[8:]]
    figures = [
        Figure("autoencoder: PSNR", overall, 28, "dB"),
        *(Figure(f"autoencoder: PSNR, {style}", value, None, "dB") for style, value in by_style.items()),
    ]
    return Outcome(figures, {"vae_psnr_db": {"overall": overall, **by_style}}, rows)


@torch.inference_mode()
def _reconstruct(pack: Pack, pixels: torch.Tensor) -> torch.Tensor:
    """Send pictures through the autoencoder and back. **Shapes**: (B, 3, H, W), -1 to 1."""
    posterior = pack.pipeline.vae.encode(pixels).latent_dist
    given: torch.Tensor = pack.pipeline.vae.decode(posterior.mean).sample
    return given.clamp(-1, 1)


def _as_bytes(pixels: torch.Tensor) -> torch.Tensor:
    """**Shapes**: (B, 3, H, W) from -1 to 1, to (B, H, W, 3) uint8."""
    return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
