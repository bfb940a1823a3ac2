"""The supported noise schedulers, by their names in the API.

Builds diffusers' own objects from a pack's scheduler config; handles no requests. Every call builds a new object,
because multistep samplers keep their history in it. Called from any thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
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
}


def make_noise_scheduler(name: str, config: Mapping[str, object]) -> Any:
    """Build a new diffusers scheduler object.

    Args:
        name: A key of `NOISE_SCHEDULERS`.
        config: The pack's `scheduler_config.json`.

    Raises:
        Invalid: `name` is not a key of `NOISE_SCHEDULERS`.

    Source:
        diffusers `SchedulerMixin.from_config`, as `pipe.scheduler = X.from_config(pipe.scheduler.config)` does.
    """
    spec = NOISE_SCHEDULERS.get(name)
    if spec is None:
        raise Invalid("There is no noise scheduler of that name.", code=ErrorCode.UNKNOWN_NOISE_SCHEDULER)
    return spec.scheduler_class.from_config(dict(config), **spec.overrides)


def set_timesteps(noise_scheduler: Any, num_inference_steps: int, device: torch.device) -> list[torch.Tensor]:
    """Plan the denoising steps and return their timesteps, first to last, as tensors on the device.

    PNDM takes one forward more than `num_inference_steps` (its second timestep occurs twice).

    Raises:
        Invalid: The noise scheduler does not support that many steps (LCM: at most 50, as in its distillation).
    """
    try:
        noise_scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, IndexError) as error:
        raise Invalid(
            "This noise scheduler cannot take that many steps.", code=ErrorCode.UNSUPPORTED_NUM_INFERENCE_STEPS
        ) from error
    return list(noise_scheduler.timesteps)
