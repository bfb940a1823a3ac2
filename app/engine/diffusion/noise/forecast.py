"""Forecast steps: steps of a noise scheduler without the UNet, folded into the step before them.

A forecast step extrapolates the image x0 that the UNet would predict, linearly in the timestep, from the last two that
it did predict, and gives the noise scheduler the model output that stands for it. Both are linear, so a computed step
and the forecast ones behind it are one linear map, of the same kind as before: such an image costs fewer turns, and
rows of other images beside it change nothing. Which steps are computed is fixed in advance; no data decide. Handles no
requests. Any thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

SAMPLE, MODEL_OUTPUT, NOISE, FIRST_REMEMBERED = range(4)  #: the columns of the coefficients


# The farthest extrapolation, in distances between the two known images. The noise schedulers' own timesteps reach 1.3;
# those of a request could reach any number.
MAX_ELAPSED = 2.0


class TensorSlot(NamedTuple):
    """Where a remembered tensor is: an attribute of diffusers' object, or a position of a list that is an attribute."""

    attribute: str
    position: int | None


# The x0 of the computed step before; diffusers' objects have no such attribute.
LAST_X0 = TensorSlot("foxhound_last_x0", None)


@dataclass(frozen=True, slots=True)
class SchedulerStep:
    """The weights of one step of diffusers' object, with as many remembered tensors as that object keeps.

    Attributes:
        held: The slots of the tensors that the object had before the step.
        keeps: The weights of every tensor that it has after the step.
        draws: Whether the step draws fresh noise.

    Shapes:
        timestep, input_scale: ().
        sample, keeps: (3 + len(held),) float64.
    """

    timestep: torch.Tensor
    input_scale: torch.Tensor
    sample: torch.Tensor
    held: Sequence[TensorSlot]
    keeps: Mapping[TensorSlot, torch.Tensor]
    draws: bool


class X0Weights(NamedTuple):
    """The image x0 that a model's output stands for: `of_sample` times the sample + `of_output` times the output."""

    of_sample: float
    of_output: float


def x0_weights(noise_scheduler: Any, index: int, step: SchedulerStep) -> X0Weights:
    """Return how x0 follows from a step's sample and model output.

    Source:
        diffusers' `convert_model_output` and `pred_original_sample`; arXiv:2010.02502, eq. 12, and arXiv:2202.00512.
    """
    if hasattr(noise_scheduler, "sigmas"):
        alpha = 1 / (1 + float(noise_scheduler.sigmas[index]) ** 2)
    else:
        alpha = float(noise_scheduler.alphas_cumprod[int(step.timestep)])
    scale = float(step.input_scale)
    kind = noise_scheduler.config.prediction_type
    if kind == "sample":
        return X0Weights(0.0, 1.0)
    if kind == "v_prediction":
        return X0Weights(scale * alpha**0.5, -((1 - alpha) ** 0.5))
    return X0Weights(scale / alpha**0.5, -((1 / alpha - 1) ** 0.5))


def fold(steps: Sequence[SchedulerStep], x0s: Sequence[X0Weights], is_computed: Sequence[bool]) -> list[SchedulerStep]:
    """Return the computed steps, each with the forecast ones behind it.

    Args:
        steps: All steps of a noise scheduler that draws no noise.
        x0s: Of each step.
        is_computed: Which steps run the model; the first two must.

    Raises:
        ValueError: A step draws noise, or a forecast one has no two computed ones before it.
    """
    if any(step.draws for step in steps) or not all(is_computed[:2]):
        raise ValueError("Only steps without fresh noise, behind two computed ones, can be forecast.")
    folded: list[SchedulerStep] = []
    computed = [index for index, runs in enumerate(is_computed) if runs]
    for position, index in enumerate(computed):
        end = computed[position + 1] if position + 1 < len(computed) else len(steps)
        before = steps[computed[position - 1]] if position else steps[index]
        folded.append(_fold_one(steps[index:end], x0s[index:end], before.timestep))
    return folded


def _fold_one(steps: Sequence[SchedulerStep], x0s: Sequence[X0Weights], timestep_before: torch.Tensor) -> SchedulerStep:
    """Fold a computed step and the forecast ones behind it; `timestep_before` is that of the computed one before."""
    first, *others = steps
    units = torch.eye(FIRST_REMEMBERED + len(first.held) + 1, dtype=torch.float64)
    x0 = x0s[0].of_sample * units[SAMPLE] + x0s[0].of_output * units[MODEL_OUTPUT]
    change = x0 - units[-1]
    sample = _combine(first.sample, units)
    kept = {slot: _combine(weights, units) for slot, weights in first.keeps.items()}
    for step, weights in zip(others, x0s[1:], strict=True):
        elapsed = float((first.timestep - step.timestep) / (timestep_before - first.timestep))
        elapsed = min(elapsed, MAX_ELAPSED)
        output = (x0 + elapsed * change - weights.of_sample * sample) / weights.of_output
        columns = torch.stack([sample, output, torch.zeros_like(sample), *(kept[slot] for slot in step.held)])
        sample = _combine(step.sample, columns)
        kept = {slot: _combine(kept_weights, columns) for slot, kept_weights in step.keeps.items()}
    return SchedulerStep(
        first.timestep, first.input_scale, sample, [*first.held, LAST_X0], {**kept, LAST_X0: x0}, first.draws
    )


def _combine(weights: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return a weighted sum of vectors over the state before the computed step.

    Shapes:
        weights: (K,); columns: (K or more, L); returns: (L,) float64.
    """
    return weights @ columns[: len(weights)]
