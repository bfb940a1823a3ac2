"""Stage `clip`: a small CLIPModel trained on drawings and their VAE reconstructions, never on generated images."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from demo_pack.build.diffusion import tokenizer_of
from demo_pack.build.drawings import Drawings, load_set
from demo_pack.build.loop import Moment, Recipe, load_average, train
from demo_pack.build.text import text_config
from demo_pack.build.views import load_views
from demo_pack.drawing.captions import said
from demo_pack.drawing.world import BACKGROUNDS, COLOURS, STYLES, SUBJECTS

RECIPE = Recipe(steps=4000, learning_rate=1e-3, weight_decay=0.03, ema_decay=0.995)
BATCH = 128
IMAGE_SIZE = 128
STATEMENT_WEIGHT = 0.5
PREFIXES = ("", "", "a ", "a photo of a ", "a picture of a ", "a drawing of a ", "an image of a ")
VOCABULARIES = (tuple(SUBJECTS), tuple(COLOURS), tuple(STYLES), tuple(BACKGROUNDS))


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained model: 16-pixel patches at 128x128, width 128, projection 128."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=16,
    )
    text = text_config(tokenizer, layers=2)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


class Pupil(nn.Module):
    """The model and, for training only, a linear layer that predicts the content of the picture.

    The reading (class, colour, style, background of the drawing) gives every picture a target of its own, where a
    batch holds only 128 captions to compare with.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.reading = nn.Linear(clip.config.projection_dim, sum(map(len, VOCABULARIES)))

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """**Shapes**: pixels (B, 3, 128, 128), ids (B, T); returns logits (B, B) and readings (B, sum of words)."""
        out = self.clip(input_ids=ids, pixel_values=pixels)
        scale = out.image_embeds.shape[1] ** 0.5
        return out.logits_per_image.float(), self.reading(out.image_embeds * scale).float()


def wording(drawings: Drawings, index: int, rng: np.random.Generator) -> str:
    """A full caption for half of the draws, otherwise a label: the class alone, or with its colour."""
    if rng.random() < 0.5:
        return str(rng.choice(drawings.captions[index]))
    name = str(rng.choice([drawings.class_names[index], *SUBJECTS[drawings.class_names[index]].words]))
    colour = drawings.colours[index]
    if name == "dog" and colour == "golden" and rng.random() < 0.4:
        return str(rng.choice(PREFIXES)) + "golden retriever"
    return str(rng.choice(PREFIXES)) + (f"{colour} {name}" if rng.random() < 0.5 else name)


def statements(drawings: Drawings) -> torch.Tensor:
    """What each drawing shows, as numbers. **Shapes**: (N, 4) int64: class, colour, style, background."""
    rows = zip(drawings.class_names, drawings.colours, drawings.styles, drawings.backgrounds, strict=True)
    return torch.tensor([_numbers(row) for row in rows])


def _numbers(row: tuple[str | None, ...]) -> list[int]:
    return [-1 if value is None else known.index(value) for value, known in zip(row, VOCABULARIES, strict=True)]


def matches(words: list[str], shown: torch.Tensor) -> torch.Tensor:
    """Whether each picture fits each caption: it shows all that is stated. **Shapes**: (pictures, captions) bool."""
    spoken = torch.tensor([_numbers(astuple(said(text))) for text in words])
    return ((spoken[None] == -1) | (spoken[None] == shown[:, None])).all(dim=2)


def contrastive_loss(logits: torch.Tensor, fits: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric loss (Radford et al. 2021), where every caption that fits a picture is a match."""
    to_text = fits / fits.sum(dim=1, keepdim=True)
    to_image = fits.T / fits.T.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, to_text) + F.cross_entropy(logits.T, to_image)) / 2


def reading_loss(readings: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the four readings. **Shapes**: (B, sum of words), (B, 4)."""
    parts = torch.split(readings, [len(words) for words in VOCABULARIES], dim=1)
    losses = [F.cross_entropy(part, shown[:, column]) for column, part in enumerate(parts)]
    return torch.stack(losses).mean()


def train_clip(workdir: Path, steps: int | None = None) -> None:
    """Train the model on captions and labels of the drawings."""
    views = load_views(workdir)
    drawings, tokenizer = views.drawings, tokenizer_of(workdir, views.drawings)
    torch.manual_seed(0)
    pupil, shown = Pupil(new_clip(tokenizer)), statements(drawings)

    def loss(moment: Moment) -> torch.Tensor:
        chosen = moment.rng.integers(0, len(shown), BATCH)
        words = [wording(drawings, int(index), moment.rng) for index in chosen]
        ids = tokenizer(words, padding=True, return_tensors="pt").input_ids
        with torch.autocast("cpu", torch.bfloat16):
            logits, readings = pupil(views.batch(chosen, moment.rng), ids)
        fits = matches(words, shown[chosen]).float()
        return contrastive_loss(logits, fits) + STATEMENT_WEIGHT * reading_loss(readings, shown[chosen])

    train(workdir, "clip", pupil, loss, RECIPE.limited(steps))


def load_clip(workdir: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """The trained model and its tokenizer; untrained where no checkpoint is."""
    tokenizer = tokenizer_of(workdir, load_set(workdir, "train"))
    pupil = Pupil(new_clip(tokenizer))
    load_average(workdir, "clip", pupil)
    return pupil.clip.eval(), tokenizer
