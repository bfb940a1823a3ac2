"""The types of an image that cross layers and processes, as JSON and back."""

import json
from dataclasses import replace
from typing import get_args

import pytest

from app.engine.diffusion.noise.schedulers import NOISE_SCHEDULERS
from app.engine.diffusion.runner import cost_of
from app.errors import ModelNotReady
from app.image_spec import SAMPLER_NAMES, ImageInfo, ImageSpec, NoiseSchedulerName, PictureRef, RenderedImage
from app.node.protocol import INFO_BYTES, RenderRequest, decode_image, encode_image
from app.schemas.generations import GenerateRequest
from app.services.generations.records import GenerationSpec
from app.services.images.spec import SizeRules, resolve_spec, settings_faults
from app.services.limits import Limits

SPEC = ImageSpec("a fox", "blur", 3.5, 20, 64, 96, 7, "ddim", "webp")
LIMITS = Limits()


def test_every_noise_scheduler_has_an_implementation_and_a_sampler_name() -> None:
    assert SAMPLER_NAMES.keys() == NOISE_SCHEDULERS.keys() == set(get_args(NoiseSchedulerName))


def test_a_spec_is_read_back_from_a_lineage_and_from_what_an_older_release_wrote() -> None:
    assert ImageSpec.from_json({**SPEC.to_json(), "pack": "demo"}) == SPEC
    assert ImageSpec.from_json({"prompt": "a fox"}) == ImageSpec("a fox")
    with pytest.raises(TypeError):
        ImageSpec.from_json({"seed": 1})


def test_recorded_parameters_are_those_of_the_request_in_the_order_of_earlier_releases() -> None:
    request = GenerateRequest(
        prompt="a fox", negative_prompt="blur", num_images_per_prompt=3, seed=7, labels=["x", "y"]
    )
    image = resolve_spec(request, SizeRules(64, 64, 192, "pndm"), seed=7)
    spec = GenerationSpec(image, 3, request.labels)
    assert list(spec.to_json().items()) == [
        ("prompt", "a fox"),
        ("negative_prompt", "blur"),
        ("width", 64),
        ("height", 64),
        ("scheduler", "pndm"),
        ("output_format", "png"),
        ("guidance_scale", 7.5),
        ("num_inference_steps", 50),
        ("num_images_per_prompt", 3),
        ("seed", 7),
        ("labels", ["x", "y"]),
    ]
    assert GenerationSpec.from_json(spec.to_json()) == spec
    assert [image.seed for image in spec.images()] == [7, 8, 9]


def test_a_model_is_recorded_where_it_is_not_the_default_one() -> None:
    other = SizeRules(128, 128, 256, "ddim")
    sizes = SizeRules(64, 64, 192, "pndm", name="demo", models={"other": other, "broken": "It is a pickle."})
    spec = resolve_spec(GenerateRequest(prompt="a fox", model="other"), sizes, seed=7)
    assert (spec.model, spec.width, spec.height, spec.scheduler) == ("other", 128, 128, "ddim")
    assert ImageSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert GenerationSpec.from_json(GenerationSpec(spec, 1, None).to_json()).image == spec
    for default in (None, "demo"):
        own = resolve_spec(GenerateRequest(prompt="a fox", model=default), sizes, seed=7)
        assert (own.model, own.width, "model" in own.to_json()) == (None, 64, False)
    values = {name: {**spec.to_json(), "model": name} for name in ("none", "broken", "other")}
    faults = {name: fault for name, each in values.items() for fault in settings_faults(each, sizes, LIMITS)}
    assert {name: (fault.pointer, fault.detail) for name, fault in faults.items()} == {
        "none": ("#/model", "The node has no model of this name. It has demo, other."),
        "broken": ("#/model", "This model cannot be used. It is a pickle."),
    }
    with pytest.raises(ModelNotReady):
        settings_faults(spec.to_json(), replace(sizes, models=None), LIMITS)


def test_images_of_other_models_share_no_step_and_have_a_cost_of_their_own() -> None:
    adapted = replace(SPEC, loras=({"name": "style"},))  # type: ignore[arg-type]
    specs = [SPEC, adapted, replace(SPEC, model="a"), replace(adapted, model="a"), replace(SPEC, model="b")]
    kinds = [cost_of(spec).kind for spec in specs]
    assert len(set(kinds)) == len(specs)
    assert [kind.network for kind in kinds] == ["", "", "a", "a", "b"]


def test_an_initial_image_is_read_back_from_json_and_left_out_where_there_is_none() -> None:
    spec = replace(SPEC, init_image=PictureRef("a" * 64, "an-id"), mask=PictureRef("b" * 64), strength=0.5, mask_blur=2)
    assert spec.to_json()["init_image"] == {"sha256": "a" * 64, "image_id": "an-id"}
    assert ImageSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert not {"init_image", "mask", "strength", "mask_blur", "mask_invert"} & SPEC.to_json().keys()
    request = RenderRequest(spec, None, background=False, pictures={"init_image": b"png", "mask": b"gnp"})
    assert RenderRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_the_worker_protocol_carries_requests_and_images_unchanged() -> None:
    request = RenderRequest(SPEC, ["a fox"], background=True)
    assert RenderRequest.from_json(request.to_json()) == request
    info = ImageInfo(
        sha256="0" * 64, flagged=None, lineage=SPEC.to_json(), warnings=[], timings={"a": 1.5}, num_bytes=3
    )
    body, headers = encode_image(RenderedImage(b"{}x", info))
    assert decode_image(body, headers) == RenderedImage(b"{}x", info)
    assert body[int(headers[INFO_BYTES]) :] == b"{}x"
