"""The settings of `speed: fast`: whose they are where a request gives none, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest

from app.image_spec import AdapterSet, FewStepSettings
from app.schemas.generations import GenerateRequest
from app.schemas.recipes import RecipeSettings
from app.services.images.spec import SizeRules, resolve_settings, resolve_spec, settings_faults
from app.services.limits import Limits

FEW_STEP = FewStepSettings(4, 8, 1.0, "ddim", "trailing")
SIZES = SizeRules(64, 64, 192, "pndm", few_step=FEW_STEP)
NAMES = ("num_inference_steps", "guidance_scale", "scheduler", "timestep_spacing")


def resolved(**given: Any) -> dict[str, Any]:
    request = GenerateRequest.model_validate({"prompt": "a fox", **given})
    values = resolve_settings(request, SIZES)
    return {name: values[name] for name in NAMES}


def test_fast_brings_its_own_settings() -> None:
    assert list(resolved(speed="fast").values()) == [4, 1.0, "ddim", "trailing"]
    assert list(resolved(speed="balanced").values()) == [50, 7.5, "pndm", None]
    nothing = {"scheduler": None, "timestep_spacing": None}
    assert resolved(speed="fast", **nothing) == resolved(speed="fast")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"num_inference_steps": 2}, [2, 1.0, "ddim", "trailing"]),
        ({"scheduler": "lcm"}, [4, 1.0, "lcm", None]),
        ({"scheduler": "euler"}, [4, 1.0, "euler", "trailing"]),
        ({"guidance_scale": 0.0, "timestep_spacing": "leading"}, [4, 0.0, "ddim", "leading"]),
        ({"timesteps": [999, 500]}, [2, 1.0, "ddim", None]),
    ],
)
def test_what_is_given_wins(given: dict[str, Any], expected: list[Any]) -> None:
    assert list(resolved(speed="fast", **given).values()) == expected


def test_a_resolved_request_resolves_to_itself() -> None:
    first = resolve_spec(GenerateRequest(prompt="a fox", speed="fast"), SIZES, seed=1)
    values = {name: value for name, value in first.to_json().items() if value is not None}
    assert resolve_spec(GenerateRequest.model_validate(values), SIZES, seed=1) == first
    assert (first.adapters, first.step_rows) == (AdapterSet(is_few_step=True), (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        ({}, []),
        ({"num_inference_steps": 8, "guidance_scale": 1.0}, []),
        ({"num_inference_steps": 9}, ["#/num_inference_steps"]),
        ({"guidance_scale": 1.1}, ["#/guidance_scale"]),
        ({"num_inference_steps": 50, "guidance_scale": 7.5}, ["#/num_inference_steps", "#/guidance_scale"]),
        ({"num_inference_steps": {"min": 4, "max": 9}}, ["#/num_inference_steps"]),
        ({"guidance_scale": {"min": 1.0, "max": 2.0}}, ["#/guidance_scale"]),
        ({"guidance_scale": {"min": 0.5, "max": 1.0}}, []),
    ],
)
def test_many_steps_and_guidance_are_refused(given: dict[str, Any], pointers: list[str]) -> None:
    values = resolve_settings(RecipeSettings.model_validate({"speed": "fast", **given}), SIZES)
    assert [fault.pointer for fault in settings_faults(values, SIZES, Limits())] == pointers


def test_without_the_weights_the_speed_is_refused_and_nothing_else_is_said() -> None:
    sizes = replace(SIZES, few_step=None)
    values = resolve_settings(RecipeSettings(speed="fast"), sizes)
    [fault] = settings_faults(values, sizes, Limits())
    assert (fault.pointer, str(fault.code)) == ("#/speed", "speed_not_offered")
