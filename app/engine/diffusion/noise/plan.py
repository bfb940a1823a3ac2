"""The steps of a noise scheduler as coefficients.

Every supported noise scheduler is linear: the new sample is a weighted sum of the old one, the model's output, fresh
noise and a few remembered tensors. The weights are read from diffusers' own object, so they always match the installed
version, and images with different noise schedulers take their step in one update. Handles no requests, models or
batches. A plan is made once for all requests with the same settings, on any thread.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from app.engine.diffusion.noise.forecast import (
    FIRST_REMEMBERED,
    LAST_X0,
    MODEL_OUTPUT,
    NOISE,
    SAMPLE,
    SchedulerStep,
    TensorSlot,
    fold,
    x0_weights,
)
from app.engine.diffusion.noise.schedulers import (
    make_noise_scheduler,
    set_neighbour,
    set_timesteps,
    trailing_timesteps,
    use_timesteps,
)
from app.error_codes import ErrorCode
from app.errors import Invalid

SCHEDULER_REMEMBERED = 3  #: tensors that a noise scheduler may need beside its sample, as PNDM and UniPC do
REMEMBERED = SCHEDULER_REMEMBERED + 1  #: tensors of an image beside its sample; a forecast needs one more

_SCALE = 1024.0  # a power of two: scaling by it does not round
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """The steps of a noise scheduler; shared by all requests with the same settings, so never written to.

    An image's state is its sample and `REMEMBERED` = H more tensors, which start as zeros. A step computes the new
    state `coefficients[i] @ [sample, model output, noise, remembered 1, ..., remembered H]`. Each step here runs the
    model; forecast steps are part of the one before them, see `forecast`.

    Attributes:
        init_noise_sigma: Factor of the initial noise.
        draws: Whether step i draws fresh noise from the request's generator.
        noise_levels: The weights of an image's latents and of noise whose sum is the sample before step i; those behind
            the last step are 1 and 0. None for plans that begin with noise alone.

    Shapes:
        timesteps: (S,), as diffusers computes them (PNDM: one more than requested); integers or float32.
        input_scales: (S,) float32; `scale_model_input` as a factor.
        coefficients: (S, 1 + H, 3 + H) float32.
        x0_weights: (S, 2) float32; what step i predicts is this much of the sample and this much of the output.
    """

    timesteps: torch.Tensor
    init_noise_sigma: float
    input_scales: torch.Tensor
    coefficients: torch.Tensor
    draws: tuple[bool, ...]
    x0_weights: torch.Tensor
    noise_levels: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which steps a plan has, beside the noise scheduler and their number.

    Attributes:
        timestep_spacing: `leading`, `trailing` or `linspace`; None: the config's.
        timesteps: All timesteps, strictly descending, in place of a spacing; None: by the spacing.
        is_computed: Which steps run the model, one for each that is taken; the others are forecast. None: all do.
        first_step: The first timestep of the list that is taken, from 0, of an image that begins with another one;
            None: it begins with noise.
    """

    timestep_spacing: str | None = None
    timesteps: tuple[int, ...] | None = None
    is_computed: tuple[bool, ...] | None = None
    first_step: int | None = None


_DEFAULT = Schedule()


def make_noise_plan(
    name: str, num_inference_steps: int, config: Mapping[str, object], schedule: Schedule = _DEFAULT
) -> NoisePlan:
    """Plan the steps of a noise scheduler.

    Args:
        name: A key of `NOISE_SCHEDULERS`.
        num_inference_steps: Denoising steps, >= 1; with given timesteps, their number.
        config: The pack's `scheduler_config.json`.
        schedule: Which steps.

    Raises:
        Invalid: The noise scheduler is unknown or does not support these steps.
        ValueError: With this config the noise scheduler is not linear, or remembers more than `SCHEDULER_REMEMBERED`
            tensors.
    """
    return _make_noise_plan(name, num_inference_steps, json.dumps(dict(config), sort_keys=True), schedule)


@functools.lru_cache(maxsize=256)
def _make_noise_plan(name: str, num_inference_steps: int, config: str, schedule: Schedule) -> NoisePlan:
    """Compute the plan; the config is JSON, which can be hashed."""
    noise_scheduler = make_noise_scheduler(name, json.loads(config), schedule.timestep_spacing)
    timesteps = _set_timesteps(noise_scheduler, num_inference_steps, schedule)
    init_noise_sigma = float(noise_scheduler.init_noise_sigma)
    is_respaced = schedule.timestep_spacing is not None or schedule.timesteps is not None
    first = schedule.first_step or 0
    levels = None if schedule.first_step is None else _noise_levels(noise_scheduler, timesteps, first)
    steps = _read_steps(noise_scheduler, timesteps, first, is_respaced=is_respaced)
    x0s = [x0_weights(noise_scheduler, first + index, step) for index, step in enumerate(steps)]
    if schedule.is_computed is not None:
        steps = fold(steps, x0s, schedule.is_computed)
        x0s = [x0 for x0, runs in zip(x0s, schedule.is_computed, strict=True) if runs]
        if levels is not None:
            levels = [*(levels[index] for index, runs in enumerate(schedule.is_computed) if runs), levels[-1]]
    return NoisePlan(
        timesteps=torch.stack([step.timestep for step in steps]),
        init_noise_sigma=init_noise_sigma,
        input_scales=torch.stack([step.input_scale for step in steps]).float(),
        coefficients=_coefficients(steps),
        draws=tuple(step.draws for step in steps),
        noise_levels=None if levels is None else tuple(levels),
        x0_weights=torch.tensor(x0s),
    )


def _noise_levels(noise_scheduler: Any, timesteps: Sequence[torch.Tensor], first: int) -> list[tuple[float, float]]:
    """Read how much of an image and of noise a sample has before each step from `first` on, and behind the last.

    Source:
        diffusers `add_noise` of every scheduler, as the pipelines for images and masks call it.
    """
    image, noise = torch.eye(2, dtype=torch.float64)[:, None]
    levels = []
    for index, timestep in enumerate(timesteps[first:], first):
        if hasattr(noise_scheduler, "set_begin_index"):
            noise_scheduler.set_begin_index(index)
        weights = noise_scheduler.add_noise(image, noise, timestep[None])
        levels.append((float(weights[0, 0]), float(weights[0, 1])))
    if hasattr(noise_scheduler, "set_begin_index"):
        noise_scheduler.set_begin_index(first)
    return [*levels, (1.0, 0.0)]


def _set_timesteps(noise_scheduler: Any, num_inference_steps: int, schedule: Schedule) -> list[torch.Tensor]:
    given = schedule.timesteps
    if given is None and schedule.timestep_spacing == "trailing":
        num_train_timesteps: int = noise_scheduler.config.num_train_timesteps
        if num_inference_steps <= num_train_timesteps:
            given = tuple(trailing_timesteps(num_inference_steps, num_train_timesteps))
    if given is None:
        return set_timesteps(noise_scheduler, num_inference_steps, _CPU)
    return use_timesteps(noise_scheduler, given)


class _GivenNoise(TorchFunctionMode):
    """Makes `torch.randn` return a given tensor, on this thread, inside the `with` block."""

    def __init__(self, noise: torch.Tensor) -> None:
        super().__init__()
        self._noise = noise
        self.num_draws = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace and count calls of `torch.randn`; pass all other calls through."""
        if func is not torch.randn:
            return func(*args, **(kwargs or {}))
        self.num_draws += 1
        return self._noise


def _read_steps(
    noise_scheduler: Any, timesteps: Sequence[torch.Tensor], first: int, *, is_respaced: bool
) -> list[SchedulerStep]:
    """Run diffusers' object over its schedule from `first` on, and read the weights of every step from unit vectors.

    Before each step the tensors that the object remembers are replaced, so that it computes on unit vectors alone: the
    sample, the model's output, the noise and each remembered tensor are one each. The result of the step, and the
    tensors that the object remembers afterwards, are then the weights themselves. With other timesteps than the
    config's, each step goes to the next timestep of the list.

    Raises:
        Invalid: A weight is not a finite number.
        ValueError: The object is not linear, or draws noise more than once a step.
    """
    steps: list[SchedulerStep] = []
    held: list[TensorSlot] = []
    for index, timestep in enumerate(timesteps[first:], first):
        if is_respaced:
            set_neighbour(noise_scheduler, timesteps, index, is_second=index == first + 1)
        units = _units(FIRST_REMEMBERED + len(held))
        for slot, unit in zip(held, units[FIRST_REMEMBERED:], strict=True):
            _put(noise_scheduler, slot, unit)
        scaled = noise_scheduler.scale_model_input(units[SAMPLE], timestep)
        with _GivenNoise(units[NOISE]) as given:
            sample = noise_scheduler.step(units[MODEL_OUTPUT], timestep, units[SAMPLE], return_dict=False)[0]
        if given.num_draws > 1:
            raise ValueError("This noise scheduler draws noise more than once a step.")
        keeps = {slot: _weights(tensor) for slot, tensor in _find(noise_scheduler, units[SAMPLE].shape).items()}
        steps.append(
            SchedulerStep(timestep, _weights(scaled)[SAMPLE], _weights(sample), held, keeps, given.num_draws == 1)
        )
        held = list(keeps)
    return steps


def _units(count: int) -> torch.Tensor:
    """Make the unit vectors, each once unscaled and once scaled, to test whether the results scale too.

    Shapes:
        returns: (count, 2, 1, 1, count) float64; an image of one row for each.
    """
    vectors = torch.eye(count, dtype=torch.float64)
    return torch.stack([vectors, vectors * _SCALE], dim=1)[:, :, None, None, :]


def _weights(tensor: torch.Tensor) -> torch.Tensor:
    """Read the weights from a tensor that was computed on unit vectors.

    Shapes:
        tensor: (2, 1, 1, K).
        returns: (K,) float64.
    """
    weights, scaled = tensor.double().flatten(1).unbind()
    if not torch.isfinite(weights).all():
        raise Invalid(
            "This noise scheduler cannot take that many steps.", code=ErrorCode.UNSUPPORTED_NUM_INFERENCE_STEPS
        )
    if not torch.allclose(scaled, weights * _SCALE, rtol=1e-9, atol=0.0):
        raise ValueError("This noise scheduler is not linear with the pack's config (clip_sample, thresholding).")
    return weights


def _find(noise_scheduler: Any, shape: torch.Size) -> dict[TensorSlot, torch.Tensor]:
    """Find the tensors of this shape in the attributes of diffusers' object."""
    found: dict[TensorSlot, torch.Tensor] = {}
    for attribute, value in vars(noise_scheduler).items():
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for position, item in items:
            if isinstance(item, torch.Tensor) and item.shape == shape:
                found[TensorSlot(attribute, position)] = item
    return found


def _put(noise_scheduler: Any, slot: TensorSlot, tensor: torch.Tensor) -> None:
    """Replace a tensor that diffusers' object remembers."""
    if slot.position is None:
        setattr(noise_scheduler, slot.attribute, tensor)
    else:
        getattr(noise_scheduler, slot.attribute)[slot.position] = tensor


def _coefficients(steps: Sequence[SchedulerStep]) -> torch.Tensor:
    """Keep only tensors that a later step reads, from the last step back, and renumber them to at most H.

    Shapes:
        returns: (S, 1 + H, 3 + H) float32.

    Raises:
        ValueError: A later step reads more tensors of the noise scheduler than `SCHEDULER_REMEMBERED`.
    """
    coefficients = torch.zeros(len(steps), 1 + REMEMBERED, FIRST_REMEMBERED + REMEMBERED)
    needed: list[TensorSlot] = []
    for matrix, step in zip(reversed(coefficients.unbind()), reversed(steps), strict=True):
        weights = torch.stack([step.sample, *(step.keeps[slot] for slot in needed)])
        is_read = weights.any(dim=0).tolist()
        columns = [column for column in range(FIRST_REMEMBERED, len(is_read)) if is_read[column]]
        own = [column for column in columns if step.held[column - FIRST_REMEMBERED] != LAST_X0]
        if len(own) > SCHEDULER_REMEMBERED:
            raise ValueError(
                f"This noise scheduler remembers more than {SCHEDULER_REMEMBERED} tensors with the pack's config."
            )
        needed = [step.held[column - FIRST_REMEMBERED] for column in columns]
        columns = [SAMPLE, MODEL_OUTPUT, NOISE, *columns]
        matrix[: len(weights), : len(columns)] = weights[:, columns]
    return coefficients
