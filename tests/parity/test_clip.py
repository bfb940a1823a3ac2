"""Our batched CLIP against `CLIPModel(**processor(text=..., images=..., padding=True))`, one request at a time.

Tolerance: 1e-4 on logits of the order of 10 and 1e-5 on probabilities, float32, alone as in a batch: other matrix
heights and paddings move the last digits. Pictures are prepared bit for bit as the processor does.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from app.engine.clip.runner import ClipPreparation, ClipRunner, ClipScores
from app.engine.clip.texts import TextEmbeddings
from app.engine.kernels.cpu_clip import CpuClipLayer
from app.engine.request import EngineRequest
from app.errors import InferenceFailed
from app.modelpacks.loading import ClipComponents, load_clip
from app.modelpacks.pack import ModelPack
from tests.parity.conftest import CPU

Question = tuple[Image.Image, tuple[str, ...]]

QUESTIONS: list[Question] = [
    (Image.effect_mandelbrot((120, 80), (-2, -1.5, 1, 1.5), 40).convert("RGB"), ("a red fox", "a dog", "the cat")),
    (Image.radial_gradient("L").convert("RGB"), ("a dog",)),
    (Image.linear_gradient("L").convert("RGB").resize((31, 200)), ("a dog", "word " * 30, "fox " * 200, "x")),
    (Image.new("RGB", (1, 1), "red"), ("", "Ünïcödé 🦊")),
]


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> ClipComponents:
    return load_clip(tiny_pack, CPU)


@pytest.fixture(scope="module")
def original(tiny_pack: ModelPack) -> ClipComponents:
    """The same weights in transformers' own layers, which a runner changes in its model."""
    return load_clip(tiny_pack, CPU)


def make_runner(components: ClipComponents) -> ClipRunner:
    return ClipRunner(model=components.model, device=CPU)


def score(components: ClipComponents, *questions: Question, runner: ClipRunner | None = None) -> list[ClipScores]:
    """Answer all questions in one step."""
    runner = runner or make_runner(components)
    prepare = ClipPreparation(components.processor, max_tokens=77)
    requests = [EngineRequest("clip", prepare(picture, texts)) for picture, texts in questions]
    for request in requests:
        runner.prepare(request)
    runner.step(requests)
    assert all(runner.is_finished(request) for request in requests)
    results = [runner.finish(request) for request in requests]
    return [result for result in results if isinstance(result, ClipScores)]


@contextmanager
def counting(tower: Any, argument: str) -> Iterator[list[tuple[int, ...]]]:
    """Yield the shapes of an argument of every forward of a tower."""
    shapes: list[tuple[int, ...]] = []
    handle = tower.register_forward_pre_hook(
        lambda _, __, inputs: shapes.append(tuple(inputs[argument].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        handle.remove()


@torch.inference_mode()
def upstream(original: ClipComponents, question: Question) -> torch.Tensor:
    picture, texts = question
    inputs = original.processor(text=list(texts), images=picture, padding=True, truncation=True, return_tensors="pt")
    logits: torch.Tensor = original.model(**inputs).logits_per_image[0]
    return logits


@pytest.mark.parametrize("question", QUESTIONS)
def test_one_request_equals_clip_called_directly(
    components: ClipComponents, original: ClipComponents, question: Question
) -> None:
    [scores] = score(components, question)
    logits = upstream(original, question)
    np.testing.assert_allclose(scores.logits, logits.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(scores.probabilities, logits.softmax(dim=0).numpy(), rtol=0, atol=1e-5)


def test_every_layer_of_both_towers_is_optimized_and_no_other_is(
    components: ClipComponents, tiny_pack: ModelPack
) -> None:
    make_runner(components)
    towers = (components.model.vision_model, components.model.text_model)
    assert {type(layer) for tower in towers for layer in tower.encoder.layers} == {CpuClipLayer}
    other = load_clip(tiny_pack, CPU)
    strange = other.model.vision_model.encoder.layers[0]
    strange.self_attn.scale *= 2
    make_runner(other)
    assert other.model.vision_model.encoder.layers[0] is strange


@torch.inference_mode()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("attention", ["all", "causal", "masked"])
def test_an_optimized_layer_equals_that_of_transformers(activation: str, attention: str) -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig(hidden_size=32, intermediate_size=64, num_attention_heads=4, hidden_act=activation)
    config._attn_implementation = "sdpa"
    layer = CLIPEncoderLayer(config).eval()
    hidden = torch.randn(3, 7, 32)
    mask = torch.rand(3, 1, 7, 7) < 0.7 if attention == "masked" else None
    if mask is not None:
        mask[..., 0] = True  # no token that sees nothing
    options = {"is_causal": attention == "causal"}
    ours, theirs = CpuClipLayer(layer)(hidden, mask, **options), layer(hidden, mask, **options)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_picture_is_prepared_bit_for_bit_as_the_processor_does(
    components: ClipComponents, question: Question
) -> None:
    payload = ClipPreparation(components.processor, max_tokens=77)(*question)
    theirs = components.processor.image_processor(images=question[0], return_tensors="pt").pixel_values[0]
    assert torch.equal(payload.pixels, theirs)


def test_requests_in_one_step_score_as_they_do_alone(components: ClipComponents, original: ClipComponents) -> None:
    for question, scores in zip(QUESTIONS, score(components, *QUESTIONS), strict=True):
        logits = upstream(original, question)
        np.testing.assert_allclose(scores.logits, logits.numpy(), rtol=0, atol=1e-4)
        np.testing.assert_allclose(scores.probabilities, logits.softmax(dim=0).numpy(), rtol=0, atol=1e-5)
        assert sum(scores.probabilities) == pytest.approx(1)


def test_remembered_texts_score_as_they_did_at_first(components: ClipComponents, original: ClipComponents) -> None:
    runner = make_runner(components)
    for question in reversed(QUESTIONS):
        score(components, question, runner=runner)
    for question, scores in zip(QUESTIONS, score(components, *QUESTIONS, runner=runner), strict=True):
        np.testing.assert_allclose(scores.logits, upstream(original, question).numpy(), rtol=0, atol=1e-4)


def test_requests_in_one_step_share_one_forward_of_each_tower(components: ClipComponents) -> None:
    with (
        counting(components.model.vision_model, "pixel_values") as images,
        counting(components.model.text_model, "input_ids") as texts,
    ):
        score(components, *QUESTIONS)
    assert [shape[0] for shape in images] == [len(QUESTIONS)]
    assert [shape[0] for shape in texts] == [len({text for _, texts in QUESTIONS for text in texts})]


def test_only_texts_that_are_new_are_encoded_and_padded_to_the_longest_of_them(components: ClipComponents) -> None:
    runner = make_runner(components)
    long, short = (QUESTIONS[2][0], ("fox " * 200,)), (QUESTIONS[1][0], ("a dog",))
    with counting(components.model.text_model, "input_ids") as texts:
        score(components, long, runner=runner)
        score(components, long, short, short, runner=runner)
        score(components, short, long, runner=runner)
    num_tokens = len(components.processor.tokenizer("a dog").input_ids)
    assert texts == [(1, 77), (1, num_tokens)]


@torch.inference_mode()
def test_the_cache_forgets_what_was_not_asked_for_the_longest(components: ClipComponents) -> None:
    first, second, third = ((0, number, 1) for number in (5, 6, 7))
    entry = 36 * 3 + 4 * 16 + 500
    embeddings = TextEmbeddings(components.model, CPU, cache_bytes=2 * entry)
    with counting(components.model.text_model, "input_ids") as texts:
        for asked in ([first, second], [first], [third], [first], [second]):
            embeddings.embed(asked)
    assert [shape[0] for shape in texts] == [2, 1, 1], "the second text had to go for the third"


@torch.inference_mode()
def test_more_texts_than_a_forward_takes_are_encoded_in_parts_the_shortest_first(components: ClipComponents) -> None:
    asked = [(0, *[5] * length, 1) for length in range(75)]
    with counting(components.model.text_model, "input_ids") as texts:
        together = TextEmbeddings(components.model, CPU).embed(asked[::-1])
    assert texts == [(64, 65), (11, 76)]
    alone = torch.cat([TextEmbeddings(components.model, CPU).embed([text]) for text in asked[::-1]])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def test_a_fault_is_not_remembered(tiny_pack: ModelPack, original: ClipComponents) -> None:
    components = load_clip(tiny_pack, CPU)
    runner = make_runner(components)
    weight = components.model.text_projection.weight.data
    sound = weight.clone()
    weight.fill_(math.nan)
    with pytest.raises(InferenceFailed):
        score(components, QUESTIONS[0], runner=runner)
    weight.copy_(sound)
    [scores] = score(components, QUESTIONS[0], runner=runner)
    np.testing.assert_allclose(scores.logits, upstream(original, QUESTIONS[0]).numpy(), rtol=0, atol=1e-4)


def test_cosines_and_the_embedding_belong_to_the_logits(components: ClipComponents) -> None:
    [scores] = score(components, QUESTIONS[0])
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
        score(components, QUESTIONS[0])
