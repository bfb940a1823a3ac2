"""Stage `clip`: a small CLIPModel taught on drawings and their VAE reconstructions, never on generated images."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, CLIPVisionConfig

from app.modelpacks.demo.build.diffusion import encode_latents, tokenizer_of
from app.modelpacks.demo.build.drawings import Drawings, load_set
from app.modelpacks.demo.build.text import text_config
from app.modelpacks.demo.build.vae import load_vae
from app.modelpacks.demo.build.workdir import TORCH_SEED, Budget, cosine, load, log, save
from app.modelpacks.demo.drawing.captions import said
from app.modelpacks.demo.drawing.world import BACKGROUNDS, COLOURS, STYLES, SUBJECTS

BATCH = 128
LEARNING_RATE = 1e-3
IMAGE_SIZE = 128
CHECKPOINT_EVERY = 100
RECONSTRUCTED = 2000
PREFIXES = ("", "", "a ", "a photo of a ", "a picture of a ", "a drawing of a ", "an image of a ")


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained model: 16-pixel patches at 128x128, width 128, projection 128."""
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=512,
        projection_dim=128,
        num_hidden_layers=5,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=16,
    )
    text = text_config(tokenizer, layers=2)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


@torch.inference_mode()
def reconstructions(workdir: Path) -> torch.Tensor:
    """The first training drawings as the VAE gives them back. **Shapes**: (2000, 128, 128, 3) uint8."""
    path = workdir / "reconstructions.pt"
    if state := load(path):
        pixels: torch.Tensor = state["pixels"]
        return pixels
    vae = load_vae(workdir).to(memory_format=torch.channels_last)
    latents, parts = encode_latents(workdir)[:RECONSTRUCTED], []
    for chunk in torch.split(latents, 50):
        with torch.autocast("cpu", torch.bfloat16):
            decoded = vae.decode(chunk / vae.config.scaling_factor).sample
        parts.append(((decoded.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1))
    pixels = torch.cat(parts)
    save(path, {"pixels": pixels})
    return pixels


def pictures(
    drawings: Drawings, rebuilt: torch.Tensor, chosen: NDArray[np.int64], rng: np.random.Generator
) -> torch.Tensor:
    """Pictures for a batch, half of those that have a reconstruction replaced by it.

    **Shapes**: (B, 3, 128, 128) float32 from -1 to 1.
    """
    pixels = drawings.batch(chosen)
    for row, index in enumerate(chosen):
        if index < len(rebuilt) and rng.random() < 0.5:
            pixels[row] = rebuilt[index].permute(2, 0, 1).float() / 127.5 - 1
    return pixels


def jittered(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A batch mirrored or not, slightly zoomed and moved, and slightly lighter or darker."""
    if rng.random() < 0.5:
        pixels = pixels.flip(3)
    size = pixels.shape[2]
    inner = int(rng.integers(round(size * 0.86), size + 1))
    y, x = rng.integers(0, size - inner + 1, 2)
    cropped = pixels[:, :, y : y + inner, x : x + inner]
    resized = F.interpolate(cropped, size=(size, size), mode="bilinear", antialias=True)
    gain, shift = rng.uniform(0.92, 1.08), rng.uniform(-0.06, 0.06)
    return (resized * gain + shift).clamp(-1, 1)


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


def _numbers(row: tuple[str | None, str | None, str | None, str | None]) -> list[int]:
    names = (list(SUBJECTS), list(COLOURS), list(STYLES), list(BACKGROUNDS))
    return [-1 if value is None else known.index(value) for value, known in zip(row, names, strict=True)]


def matches(words: list[str], shown: torch.Tensor) -> torch.Tensor:
    """Whether each picture fits each caption: all that is said is shown. **Shapes**: (pictures, captions) bool."""
    spoken = torch.tensor([_numbers(astuple(said(text))) for text in words])
    return ((spoken[None] == -1) | (spoken[None] == shown[:, None])).all(dim=2)


def train_step(
    model: CLIPModel, optimizer: torch.optim.Optimizer, pixels: torch.Tensor, ids: torch.Tensor, fits: torch.Tensor
) -> float:
    """One step of the symmetric contrastive loss, where every caption that fits a picture is a match."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, pixel_values=pixels).logits_per_image.float()
    to_text = fits / fits.sum(dim=1, keepdim=True)
    to_image = fits.T / fits.T.sum(dim=1, keepdim=True)
    loss = (F.cross_entropy(logits, to_text) + F.cross_entropy(logits.T, to_image)) / 2
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def train(workdir: Path, minutes: float) -> None:
    """Train, or go on training, until `minutes` of this stage are used."""
    drawings, path = load_set(workdir, "train"), workdir / "clip.pt"
    rebuilt, tokenizer = reconstructions(workdir), tokenizer_of(workdir, drawings)
    torch.manual_seed(TORCH_SEED)
    model = new_clip(tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    step, spent = 0, 0.0
    if state := load(path):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    shown, rng, budget = statements(drawings), np.random.default_rng([TORCH_SEED, step]), Budget(minutes, spent)
    while budget.share < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(budget.share)
        chosen = rng.integers(0, len(drawings.images), BATCH)
        words = [wording(drawings, int(index), rng) for index in chosen]
        pixels = jittered(pictures(drawings, rebuilt, chosen, rng), rng)
        ids = tokenizer(words, padding=True, return_tensors="pt").input_ids
        loss = train_step(model, optimizer, pixels, ids, matches(words, shown[chosen]).float())
        step += 1
        if step % CHECKPOINT_EVERY == 0 or budget.share >= 1:
            log(workdir, "clip", step=step, loss=round(loss, 3), minutes=round(budget.used / 60, 1))
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save(path, {**parts, "step": step, "spent": budget.used})


def load_clip(workdir: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """The trained model and its tokenizer; untrained where no checkpoint is."""
    tokenizer = tokenizer_of(workdir, load_set(workdir, "train"))
    model = new_clip(tokenizer)
    if state := load(workdir / "clip.pt"):
        model.load_state_dict(state["model"])
    return model.eval(), tokenizer
