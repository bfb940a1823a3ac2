"""The teacher's images while they are denoised, which the few-step model learns from; kept on disk in chunks.

A trajectory is a prompt, the noise that it begins with, and the samples at the timesteps of the few steps, up to the
finished latents. Each chunk has a seed of its own, so an interrupted run continues with the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler

from demo_pack.build.diffusion import tokenize
from demo_pack.build.drawings import OTHER_SIZES, SIZE
from demo_pack.build.workdir import TORCH_SEED, load, log, save
from demo_pack.drawing import CLASSES, COLOURS
from demo_pack.drawing.captions import caption
from demo_pack.drawing.world import BACKGROUND_WEIGHTS, STYLE_WEIGHTS, SUBJECTS

FEW_STEPS = 4
# Three for each few step; with 12 of them CLIP reads the images as it does those of 50.
TEACHER_STEPS = 12
GUIDANCE = 7.5
CHUNK = 64
NATIVE_CHUNKS = 8
OTHER_CHUNK = 16
LARGEST = 160  # pixels; larger images take the time of several
NATURAL_SHARE = 0.4
LATENT_FACTOR = 8


@dataclass(frozen=True)
class Teacher:
    """The pack's parts that draw: the UNet, what turns prompts into embeddings, and the noise schedule's settings."""

    unet: Any
    tokenizer: Any
    text_encoder: Any
    schedule: dict[str, object]

    @torch.inference_mode()
    def words(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The prompts' embeddings. **Shapes**: (N, 77) to (N, 77, 128) float32."""
        embeddings: torch.Tensor = self.text_encoder(token_ids).last_hidden_state
        return embeddings


@dataclass(frozen=True)
class Order:
    """A chunk of trajectories: `count` images of one size in pixels, from the seed `number`."""

    number: int
    count: int
    width: int = SIZE
    height: int = SIZE


def orders() -> list[Order]:
    """All chunks: those of the native size, then one of each other size up to `LARGEST`."""
    native = [Order(number, CHUNK) for number in range(NATIVE_CHUNKS)]
    others = enumerate(OTHER_SIZES, 1000)
    return [*native, *(Order(number, OTHER_CHUNK, *size) for number, size in others if max(size) <= LARGEST)]


def prompts_of(order: Order) -> list[str]:
    """Captions of the world: the classes in turn, natural colours more often than others."""
    rng = np.random.default_rng([TORCH_SEED, 4, order.number])
    return [_prompt(rng, CLASSES[(order.number * CHUNK + index) % len(CLASSES)]) for index in range(order.count)]


def _prompt(rng: np.random.Generator, class_name: str) -> str:
    colours = [name for name in COLOURS if name != "golden" or class_name == "dog"]
    is_natural = rng.random() < NATURAL_SHARE
    colour = str(rng.choice(SUBJECTS[class_name].natural if is_natural else colours))
    style, background = (
        str(rng.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values())))
        for weights in (STYLE_WEIGHTS, BACKGROUND_WEIGHTS)
    )
    return caption(rng, class_name, colour, style, background)


def draw_all(workdir: Path, teacher: Teacher) -> Iterator[dict[str, torch.Tensor]]:
    """Yield every chunk, drawn or from disk. **Shapes**: states (N, 5, 4, h, w) float16, token_ids (N, 77) int64."""
    for order in orders():
        path = workdir / f"trajectories-{order.number}.pt"
        chunk = load(path)
        if chunk is None:
            started = time.monotonic()
            ids = tokenize(teacher.tokenizer, prompts_of(order))
            chunk = {"states": _draw(teacher, order, ids).half(), "token_ids": ids}
            save(path, chunk)
            log(workdir, "trajectories", chunk=order.number, seconds=round(time.monotonic() - started, 1))
        yield chunk


@torch.inference_mode()
def _draw(teacher: Teacher, order: Order, token_ids: torch.Tensor) -> torch.Tensor:
    """Denoise a chunk with guidance. **Shapes**: token ids (N, 77), returns (N, 5, 4, h, w) float32."""
    solver = DPMSolverMultistepScheduler.from_config(
        teacher.schedule, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing"
    )
    solver.set_timesteps(TEACHER_STEPS)
    empty = tokenize(teacher.tokenizer, [""]).expand_as(token_ids)
    words = teacher.words(torch.cat([empty, token_ids]))
    generator = torch.Generator().manual_seed(order.number)
    sides = order.height // LATENT_FACTOR, order.width // LATENT_FACTOR
    sample = torch.randn(order.count, 4, *sides, generator=generator)
    states = [sample]
    for index, timestep in enumerate(solver.timesteps):
        twice = torch.cat([sample, sample]).to(memory_format=torch.channels_last)
        without, captioned = teacher.unet(twice, timestep, words).sample.chunk(2)
        sample = solver.step(without + GUIDANCE * (captioned - without), timestep, sample).prev_sample
        if (index + 1) % (TEACHER_STEPS // FEW_STEPS) == 0:
            states.append(sample)
    return torch.stack(states, dim=1)
