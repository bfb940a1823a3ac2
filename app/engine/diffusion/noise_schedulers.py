"""The noise schedulers on offer, by the names that the API uses.

Knows how to build diffusers' own objects from a pack's scheduler config, and nothing of requests. Every image gets a
fresh object, because multistep samplers keep their history in it.
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
class _Recipe:
    """A diffusers class and what it changes in the pack's config."""

    scheduler_class: Any
    overrides: Mapping[str, object] = field(default_factory=dict)


NOISE_SCHEDULERS: Mapping[str, _Recipe] = {
    "pndm": _Recipe(PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": _Recipe(DDIMScheduler),
    "euler": _Recipe(EulerDiscreteScheduler),
    "euler_a": _Recipe(EulerAncestralDiscreteScheduler),
    "dpmpp_2m": _Recipe(DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp_2m_karras": _Recipe(
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
    "unipc": _Recipe(UniPCMultistepScheduler),
    "lcm": _Recipe(LCMScheduler),
}


def make_noise_scheduler(name: str, config: Mapping[str, object]) -> Any:
    """Build a fresh diffusers scheduler object.

    Args:
        name: A key of `NOISE_SCHEDULERS`.
        config: The pack's `scheduler_config.json`.

    Raises:
        Invalid: There is no noise scheduler of that name.

    Source:
        diffusers `SchedulerMixin.from_config`, as `pipe.scheduler = X.from_config(pipe.scheduler.config)` does.
    """
    recipe = NOISE_SCHEDULERS.get(name)
    if recipe is None:
        raise Invalid("There is no noise scheduler of that name.", code=ErrorCode.UNKNOWN_NOISE_SCHEDULER)
    return recipe.scheduler_class.from_config(dict(config), **recipe.overrides)


def set_timesteps(noise_scheduler: Any, num_inference_steps: int, device: torch.device) -> list[torch.Tensor]:
    """Plan the denoising steps and return their timesteps, first to last, as tensors on the device.

    PNDM plans one forward more than steps asked (its second timestep comes twice).

    Raises:
        Invalid: This noise scheduler cannot take that many steps (LCM: no more than its distillation used, 50).
    """
    try:
        noise_scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, IndexError) as error:
        raise Invalid(
            "This noise scheduler cannot take that many steps.", code=ErrorCode.UNSUPPORTED_NUM_INFERENCE_STEPS
        ) from error
    return list(noise_scheduler.timesteps)
