"""The UNet rows of each denoising step of an image: what the engine runs, and what admission and quotas count.

Pure arithmetic of an image's settings; imports nothing, so that every process counts alike. Any thread may call it.
"""

import functools
from collections.abc import Sequence
from typing import Literal

Speed = Literal["exact", "balanced", "fast"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]

# The noise schedulers whose steps may be forecast. Fresh noise in a step breaks the smooth history of the others.
FORECAST_SCHEDULERS = frozenset({"pndm", "ddim", "euler", "dpmpp_2m", "dpmpp_2m_karras", "unipc"})

# The noise schedulers that take other timesteps than their own.
SPACED_SCHEDULERS = frozenset({"pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "unipc"})
TIMESTEP_SCHEDULERS = SPACED_SCHEDULERS | {"lcm", "tcd"}

# The name of the forecast in an image's lineage; a change of pattern or weights needs another one.
FORECAST = "linear-1"

# With so few steps hardly any could be left out.
MAX_STEPS_WITHOUT_FORECAST = 8

_FIRST_COMPUTED = 4
# Steps from one computed step to the next: floor(2), floor(2.5), floor(3), ...
_FIRST_PERIOD, _PERIOD_GROWTH = 2.0, 0.5
_LAST_COMPUTED_SHARE = 0.1


def first_step(num_inference_steps: int, strength: float | None) -> int:
    """Return the first step that an image takes, from 0; `num_inference_steps`: it takes none.

    Args:
        num_inference_steps: Denoising steps of the whole schedule, >= 1.
        strength: Share of the schedule that an initial image is repainted for, above 0 to 1; None: there is none.

    Source:
        diffusers `StableDiffusionImg2ImgPipeline.get_timesteps`.
    """
    return (
        0 if strength is None else num_inference_steps - min(int(num_inference_steps * strength), num_inference_steps)
    )


def num_steps(scheduler: str, num_inference_steps: int, strength: float | None = None) -> int:
    """Return the steps that an image takes, >= 1: `pndm` takes its second step twice.

    Of `pndm` an initial image skips entries of the list in which that step is twice, as diffusers does.
    """
    all_steps = num_inference_steps + (scheduler == "pndm" and num_inference_steps > 1)
    return all_steps - first_step(num_inference_steps, strength)


def forecast_name(speed: str, scheduler: str, num_inference_steps: int) -> str | None:
    """Return the forecast that a speed has with these settings; None: every step is computed."""
    is_on = speed == "balanced" and scheduler in FORECAST_SCHEDULERS
    return FORECAST if is_on and num_inference_steps > MAX_STEPS_WITHOUT_FORECAST else None


@functools.lru_cache(maxsize=512)
def computed_steps(steps: int) -> tuple[bool, ...]:
    """Return which steps run the UNet under a forecast, by their number alone.

    The first four, then ever fewer, and the last tenth.

    Source:
        stable-diffusion.cpp, `docs/caching.md` (Spectrum): the same numbers of steps, without its data.
    """
    first_of_the_last = int(steps * (1 - _LAST_COMPUTED_SHARE))
    computed = [index < _FIRST_COMPUTED or index >= first_of_the_last for index in range(steps)]
    position, period = _FIRST_COMPUTED - 1, _FIRST_PERIOD
    while (position := position + int(period)) < first_of_the_last:
        computed[position] = True
        period += _PERIOD_GROWTH
    return tuple(computed)


def is_guided_at(index: int, steps: int, interval: Sequence[float] | None) -> bool:
    """Return whether a step lies in the guided interval, as parts of the schedule; None: all do.

    Source:
        arXiv:2404.07724; the bounds count as diffusers' `control_guidance_start` and `control_guidance_end`.
    """
    if interval is None:
        return True
    start, end = interval
    return index / steps >= start - 1e-9 and (index + 1) / steps <= end + 1e-9


@functools.lru_cache(maxsize=512)
def step_rows(
    scheduler: str,
    num_inference_steps: int,
    is_guided: bool,
    speed: str = "exact",
    guidance_interval: tuple[float, float] | None = None,
    strength: float | None = None,
) -> tuple[int, ...]:
    """Return the UNet rows of each step: 0 where it is forecast, 2 where it is guided, else 1.

    Args:
        scheduler: The noise scheduler's name.
        num_inference_steps: Denoising steps, >= 1.
        is_guided: Whether the guidance scale is above 1.
        speed: `exact`, `balanced` or `fast`.
        guidance_interval: From and to, 0 to 1 as parts of the steps that are taken; None: guidance at every step.
        strength: Of an initial image, see `first_step`; None: there is none.
    """
    steps = num_steps(scheduler, num_inference_steps, strength)
    taken = num_inference_steps - first_step(num_inference_steps, strength)
    is_forecast = forecast_name(speed, scheduler, taken) is not None
    computed = computed_steps(steps) if is_forecast else (True,) * steps
    return tuple(
        (2 if is_guided and is_guided_at(index, steps, guidance_interval) else 1) if computed[index] else 0
        for index in range(steps)
    )
