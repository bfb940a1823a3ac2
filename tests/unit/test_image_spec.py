"""The types of an image that cross layers and processes, as JSON and back."""

from typing import get_args

import pytest

from app.engine.diffusion.noise_schedulers import NOISE_SCHEDULERS
from app.image_spec import SAMPLER_NAMES, ImageInfo, ImageSpec, NoiseSchedulerName, RenderedImage
from app.node.protocol import INFO_BYTES, RenderRequest, decode_image, encode_image
from app.schemas.generations import GenerateRequest
from app.services.generations.records import GenerationSpec
from app.services.images.spec import SizeRules, resolve_spec

SPEC = ImageSpec("a fox", "blur", 3.5, 20, 64, 96, 7, "ddim", "webp")


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


def test_the_worker_protocol_carries_requests_and_images_unchanged() -> None:
    request = RenderRequest(SPEC, ["a fox"], background=True)
    assert RenderRequest.from_json(request.to_json()) == request
    info = ImageInfo(
        sha256="0" * 64, flagged=None, lineage=SPEC.to_json(), warnings=[], timings={"a": 1.5}, num_bytes=3
    )
    body, headers = encode_image(RenderedImage(b"{}x", info))
    assert decode_image(body, headers) == RenderedImage(b"{}x", info)
    assert body[int(headers[INFO_BYTES]) :] == b"{}x"
