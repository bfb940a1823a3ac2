"""Stage `guidance`: gives guidance 7.5 the strength that it has in Stable Diffusion 1.5.

The drawings' captions are always true and the vocabulary is small, so that a caption changes the prediction far more
than captions of the web do, and 7.5 times that is too much for few steps (of PNDM in particular). The model is trained
to predict `SHARE` of its own difference between caption and no caption; nothing else of it changes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from demo_pack.build.diffusion import Course, Diffusion, load_diffusion
from demo_pack.build.loop import Moment, Recipe, train

# Guidance 7.5 of the distilled model equals 1 + 6.5 * SHARE = 3.6 of its teacher.
SHARE = 0.4
RECIPE = Recipe(steps=800, learning_rate=3e-4, hidden_learning_rate=0.004, ema_decay=0.99)


def gentle_noise(
    teacher: Diffusion, noisy: torch.Tensor, timesteps: torch.Tensor, ids: torch.Tensor, empty: torch.Tensor
) -> torch.Tensor:
    """The teacher's prediction without the caption, and `SHARE` of what the caption changes.

    **Shapes**: noisy and result (B, 4, H, W), timesteps (B,), ids (B, 77), empty (77,).
    """
    both = torch.cat([empty.expand_as(ids), ids])
    without, captioned = teacher(torch.cat([noisy, noisy]), timesteps.repeat(2), both).float().chunk(2)
    gentle: torch.Tensor = without + SHARE * (captioned - without)
    return gentle


def train_guidance(workdir: Path, steps: int | None = None) -> None:
    """Train a copy of the model of stage `diffusion` on that model's own predictions, with less guidance."""
    course = Course(workdir)
    teacher, _ = load_diffusion(workdir, "diffusion")
    model, _ = load_diffusion(workdir, "diffusion")
    for each in (teacher, model):
        each.to(memory_format=torch.channels_last)
    model.train()

    def loss(moment: Moment) -> torch.Tensor:
        latents, ids = course.batch(moment)
        _, timesteps, noisy = course.add_noise(latents)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = gentle_noise(teacher, noisy, timesteps, ids, course.empty)
            predicted = model(noisy, timesteps, ids)
        return course.error(predicted, wanted, timesteps)

    train(workdir, "guidance", model, loss, RECIPE.limited(steps))
