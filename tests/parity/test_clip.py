"""Our batched CLIP against `CLIPModel(**processor(text=..., images=..., padding=True))`, one request at a time.

Tolerance: 1e-4 on logits of the order of 10 and 1e-5 on probabilities, float32: the batch pads texts further and
multiplies larger matrices, which moves the last digits.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from app.engine.clip import ClipPayload, ClipRunner, ClipScores
from app.engine.request import EngineRequest
from app.errors import InferenceFailed
from app.modelpacks.loading import ClipComponents, load_clip
from app.modelpacks.pack import ModelPack
from tests.parity.conftest import CPU

PAYLOADS = [
    ClipPayload(picture, texts)
    for picture, texts in [
        (Image.effect_mandelbrot((120, 80), (-2, -1.5, 1, 1.5), 40).convert("RGB"), ("a red fox", "a dog", "the cat")),
        (Image.radial_gradient("L").convert("RGB"), ("a dog",)),
        (Image.linear_gradient("L").convert("RGB").resize((31, 200)), ("a dog", "word " * 30, "fox " * 200, "x")),
        (Image.new("RGB", (1, 1), "red"), ("", "Ünïcödé 🦊")),
    ]
]


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> ClipComponents:
    return load_clip(tiny_pack, CPU)


def score(components: ClipComponents, *payloads: ClipPayload) -> list[ClipScores]:
    """Score all payloads in one step."""
    runner = ClipRunner(model=components.model, processor=components.processor, device=CPU)
    requests = [EngineRequest("clip", payload) for payload in payloads]
    for request in requests:
        runner.prepare(request)
    runner.step(requests)
    assert all(runner.is_finished(request) for request in requests)
    return [runner.finish(request) for request in requests]


@torch.inference_mode()
def upstream(components: ClipComponents, payload: ClipPayload) -> torch.Tensor:
    inputs = components.processor(
        text=list(payload.texts), images=payload.image, padding=True, truncation=True, return_tensors="pt"
    )
    logits: torch.Tensor = components.model(**inputs).logits_per_image[0]
    return logits


@pytest.mark.parametrize("payload", PAYLOADS)
def test_one_request_equals_clip_called_directly(components: ClipComponents, payload: ClipPayload) -> None:
    [scores] = score(components, payload)
    logits = upstream(components, payload)
    assert scores.logits == tuple(logits.tolist()), "the same operations: equal bit for bit"
    np.testing.assert_allclose(scores.probabilities, logits.softmax(dim=0).numpy(), rtol=0, atol=1e-6)


def test_requests_in_one_step_score_as_they_do_alone(components: ClipComponents) -> None:
    for payload, scores in zip(PAYLOADS, score(components, *PAYLOADS), strict=True):
        logits = upstream(components, payload)
        np.testing.assert_allclose(scores.logits, logits.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(scores.probabilities, logits.softmax(dim=0).numpy(), rtol=0, atol=1e-5)
        assert sum(scores.probabilities) == pytest.approx(1)


def test_requests_in_one_step_share_one_forward(components: ClipComponents) -> None:
    forwards: list[int] = []
    handle = components.model.register_forward_pre_hook(
        lambda _, __, inputs: forwards.append(len(inputs["pixel_values"])), with_kwargs=True
    )
    try:
        score(components, *PAYLOADS)
    finally:
        handle.remove()
    assert forwards == [len(PAYLOADS)]


def test_cosines_and_the_embedding_belong_to_the_logits(components: ClipComponents) -> None:
    [scores] = score(components, PAYLOADS[0])
    scale = components.model.logit_scale.exp().item()
    np.testing.assert_allclose(np.array(scores.cosines) * scale, scores.logits, rtol=1e-5)
    assert all(-1 <= cosine <= 1 for cosine in scores.cosines)
    assert scores.image_embed.shape == (16,)
    assert scores.image_embed.dtype == np.float32
    assert np.linalg.norm(scores.image_embed) == pytest.approx(1)


def test_an_answer_that_is_not_a_number_is_an_error(tiny_pack: ModelPack) -> None:
    components = load_clip(tiny_pack, CPU)
    components.model.visual_projection.weight.data.fill_(math.nan)
    with pytest.raises(InferenceFailed):
        score(components, PAYLOADS[0])
