"""An independent judge: another architecture, seed and set of drawings than anything in the pack. It never ships.

It sees drawings only, roughened so that it does not lean on their exact pixels, and nothing that the pack made.
"""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.models import shufflenet_v2_x0_5

from bench.demo_pack.drawings import load_current
from bench.demo_pack.generated import Generated
from bench.demo_pack.generation import progress
from bench.demo_pack.metrics import Scores, share, share_by, top_k
from bench.demo_pack.reading import network_outputs, softmax
from bench.demo_pack.table import Figure, Outcome
from demo_pack.build.drawings import Drawings, Order, draw_set
from demo_pack.build.loop import Moment, Recipe, load_average, train

SEED = 3
BATCH = 64
LEARNING_RATE = 2e-3
SMOOTHING = 0.05


def judge_drawings(workdir: Path, processes: int, count: int) -> Drawings:
    """Draw the judge's own training set, unless it is there."""
    with redirect_stdout(sys.stderr):
        draw_set(workdir, f"judge_{count}", Order(SEED, count), processes)
    return load_current(workdir, f"judge_{count}", SEED)


def train_judge(drawings: Drawings, classes: tuple[str, ...], folder: Path, steps: int) -> nn.Module:
    """Train the judge, or go on from its checkpoint in `folder`; a finished one is only loaded."""
    started, name = time.perf_counter(), f"judge-{_purpose(drawings, classes)}"
    torch.manual_seed(SEED)
    model: nn.Module = shufflenet_v2_x0_5(weights=None, num_classes=len(classes)).to(memory_format=torch.channels_last)
    labels = torch.tensor([classes.index(name) if name in classes else -1 for name in drawings.class_names])
    known = np.flatnonzero(labels.numpy() >= 0)

    def loss(moment: Moment) -> torch.Tensor:
        chosen = moment.rng.choice(known, BATCH)
        pixels = roughened(drawings.batch(chosen), moment.rng).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels)
        return F.cross_entropy(logits.float(), labels[chosen], label_smoothing=SMOOTHING)

    folder.mkdir(parents=True, exist_ok=True)
    with redirect_stdout(sys.stderr):
        train(folder, name, model, loss, Recipe(steps, LEARNING_RATE, weight_decay=0.02, ema_decay=0.99))
    load_average(folder, name, model)
    progress("judge", time.perf_counter() - started)
    return model.eval()


def _purpose(drawings: Drawings, classes: tuple[str, ...]) -> str:
    """Name what a checkpoint was trained for: other drawings or classes want another judge."""
    sample = np.ascontiguousarray(drawings.images[:: max(1, len(drawings.images) // 50)])
    content = sample.tobytes() + repr((classes, len(drawings.images))).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def roughened(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Mirror, zoom, move, light, blur and add noise to each picture of a batch by its own chance.

    **Shapes**: (B, 3, H, W), -1 to 1, in and out.
    """
    count = len(pixels)
    mirror = rng.choice([-1.0, 1.0], count)
    zoom = rng.uniform(0.8, 1.1, count)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1] = mirror * zoom, zoom
    theta[:, :, 2] = rng.uniform(-0.1, 0.1, (count, 2))
    grid = F.affine_grid(torch.from_numpy(theta), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels.contiguous(), grid, padding_mode="reflection", align_corners=False)
    blurred = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    softness = torch.from_numpy(rng.uniform(-0.6, 1.0, (count, 1, 1, 1)).clip(0).astype(np.float32))
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (count, 1, 1, 1)).astype(np.float32))
    shift = torch.from_numpy(rng.uniform(-0.12, 0.12, (count, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(pixels.shape, np.float32)) * float(rng.uniform(0, 0.06))
    return (torch.lerp(moved, blurred, softness) * gain + shift + noise).clamp(-1, 1)


def judge_votes(model: nn.Module, images: list[Image.Image]) -> Scores:
    """Ask the judge for the class. **Shapes**: (N, K), rows sum to 1."""
    return softmax(network_outputs(model, _preprocess, images))


def _preprocess(image: Image.Image) -> torch.Tensor:
    """**Shapes**: picture of 128 by 128 pixels to (3, 128, 128), -1 to 1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1


def measure_judge(
    model: nn.Module,
    held_out: Drawings,
    count: int,
    classes: tuple[str, ...],
    generated: Generated,
    votes: dict[str, Scores],
) -> Outcome:
    """Compare the judge with what the pack's own models say of the same generated pictures."""
    images = [Image.fromarray(pixels) for pixels in held_out.images[:count]]
    wanted = [classes.index(name) if name in classes else -1 for name in held_out.class_names[:count]]
    on_drawings = share(top_k(judge_votes(model, images), wanted))
    hits = top_k(votes["judge"], generated.wanted)
    on_generated = share(hits)
    gaps = {name: abs(on_generated - share(top_k(votes[name], generated.wanted))) for name in ("clip", "classifier")}
    figures = [
        Figure("judge: held-out drawings", on_drawings),
        Figure("judge: generated, class", on_generated),
        Figure("judge: distance to CLIP on generated", gaps["clip"], 0.03, "points", is_limit=True),
        Figure("judge: distance to ResNet18 on generated", gaps["classifier"], 0.03, "points", is_limit=True),
    ]
    quality = {
        "architecture": "shufflenet_v2_x0_5, trained on drawings of another seed only",
        "held_out_drawings": on_drawings,
        "generated": on_generated,
        "per_class": share_by(generated.class_names, hits),
    }
    return Outcome(figures, quality)
