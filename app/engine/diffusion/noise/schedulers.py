"""The supported noise schedulers, by their names in the API.

Builds diffusers' own objects from a pack's scheduler config; handles no requests. Every call builds a new object,
because multistep samplers keep their history in it. Called from any thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)

from app.error_codes import ErrorCode
from app.errors import Invalid


@dataclass(frozen=True, slots=True)
class _SchedulerSpec:
    """A diffusers class and its overrides of the pack's config."""

    scheduler_class: Any
    overrides: Mapping[str, object] = field(default_factory=dict)


NOISE_SCHEDULERS: Mapping[str, _SchedulerSpec] = {
    "pndm": _SchedulerSpec(PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": _SchedulerSpec(DDIMScheduler),
    "euler": _SchedulerSpec(EulerDiscreteScheduler),
    "euler_a": _SchedulerSpec(EulerAncestralDiscreteScheduler),
    "dpmpp_2m": _SchedulerSpec(DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_karras": _SchedulerSpec(
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
    "unipc": _SchedulerSpec(UniPCMultistepScheduler),
    "lcm": _SchedulerSpec(LCMScheduler),
    "tcd": _SchedulerSpec(TCDScheduler),  # with its own eta, 0.3
}


def make_noise_scheduler(name: str, config: Mapping[str, object], timestep_spacing: str | None = None) -> Any:
    """Build a new diffusers scheduler object.

    Args:
        name: A key of `NOISE_SCHEDULERS`.
        config: The pack's `scheduler_config.json`.
        timestep_spacing: `leading`, `trailing` or `linspace`; None: the config's.

    Raises:
        Invalid: `name` is not a key of `NOISE_SCHEDULERS`.

    Source:
        diffusers `SchedulerMixin.from_config`, as `pipe.scheduler = X.from_config(pipe.scheduler.config)` does.
    """
    spec = NOISE_SCHEDULERS.get(name)
    if spec is None:
        raise Invalid("There is no noise scheduler of that name.", code=ErrorCode.UNKNOWN_NOISE_SCHEDULER)
    spacing = {} if timestep_spacing is None else {"timestep_spacing": timestep_spacing}
    return spec.scheduler_class.from_config(dict(config), **spec.overrides, **spacing)


def set_timesteps(noise_scheduler: Any, num_inference_steps: int, device: torch.device) -> list[torch.Tensor]:
    """Plan the denoising steps and return their timesteps, first to last, as tensors on the device.

    PNDM takes one forward more than `num_inference_steps` (its second timestep occurs twice).

    Raises:
        Invalid: The noise scheduler does not support that many steps (LCM, TCD: at most 50, as in distillation).
    """
    try:
        noise_scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, IndexError) as error:
        raise Invalid(
            "This noise scheduler cannot take that many steps.", code=ErrorCode.UNSUPPORTED_NUM_INFERENCE_STEPS
        ) from error
    return list(noise_scheduler.timesteps)


def trailing_timesteps(num_inference_steps: int, num_train_timesteps: int) -> list[int]:
    """Return the timesteps of the spacing `trailing`, first to last.

    Source:
        arXiv:2305.08891, table 2. diffusers' `np.arange` has one element too many, -1, for 61, 103, 121 and 122 steps.
    """
    ratio = num_train_timesteps / num_inference_steps
    return [round(num_train_timesteps - index * ratio) - 1 for index in range(num_inference_steps)]


def use_timesteps(noise_scheduler: Any, timesteps: Sequence[int]) -> list[torch.Tensor]:
    """Set given timesteps, strictly descending, and return them as tensors; PNDM's second one occurs twice.

    Raises:
        Invalid: The noise scheduler has timesteps of its own (Karras).

    Source:
        diffusers' `set_timesteps(timesteps=...)`, also for the four classes whose `set_timesteps` takes none.
    """
    if isinstance(noise_scheduler, EulerDiscreteScheduler | DPMSolverMultistepScheduler | LCMScheduler | TCDScheduler):
        try:
            noise_scheduler.set_timesteps(timesteps=list(timesteps))
        except ValueError as error:
            detail = "This noise scheduler has its own timesteps."
            raise Invalid(detail, code=ErrorCode.TIMESTEPS_NOT_SUPPORTED) from error
        return list(noise_scheduler.timesteps)
    noise_scheduler.set_timesteps(len(timesteps))
    if isinstance(noise_scheduler, PNDMScheduler):
        noise_scheduler.timesteps = torch.tensor([*timesteps[:2], *timesteps[1:]])
    else:
        noise_scheduler.timesteps = torch.tensor(timesteps, dtype=noise_scheduler.timesteps.dtype)
    if hasattr(noise_scheduler, "sigmas"):
        alphas = noise_scheduler.alphas_cumprod.numpy()
        sigmas = np.interp(timesteps, np.arange(len(alphas)), ((1 - alphas) / alphas) ** 0.5).astype(np.float32)
        noise_scheduler.sigmas = torch.cat([torch.from_numpy(sigmas), noise_scheduler.sigmas[-1:]])
    return list(noise_scheduler.timesteps)


def set_neighbour(noise_scheduler: Any, timesteps: Sequence[torch.Tensor], index: int, *, is_second: bool) -> None:
    """Make DDIM or PNDM step from a timestep of the list to the next one; the others read the list themselves.

    Both compute the next timestep as t - T // n for n steps, which is no timestep of the list when these are not evenly
    spaced (huggingface/diffusers #9261, #11347, #12633). A fraction in place of n gives the distance in the list. The
    step after the last timestep ends behind the schedule. PNDM takes the second of its steps from the timestep before
    to this one, again.

    Args:
        noise_scheduler: Its `timesteps` are set.
        timesteps: All of them; PNDM's second one twice.
        index: Of the step.
        is_second: Whether it is the second step that is taken.
    """
    if not isinstance(noise_scheduler, DDIMScheduler | PNDMScheduler):
        return
    at, values = int(timesteps[index]), [int(timestep) for timestep in timesteps]
    if is_second and isinstance(noise_scheduler, PNDMScheduler):
        distance = next(value for value in reversed(values[:index]) if value != at) - at
    else:
        distance = at - next((value for value in values[index:] if value != at), -1)
    noise_scheduler.num_inference_steps = Fraction(noise_scheduler.config.num_train_timesteps, distance)
