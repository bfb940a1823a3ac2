"""The prompt encoder's cache: the same embeddings, made once, within its bytes."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from app.engine.diffusion.texts.prompts import PromptEncoder, Reading
from app.errors import Invalid
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.pack import ModelPack
from tests.parity.conftest import CPU


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, torch.float32)


class Counted:
    """An encoder that counts its forwards."""

    def __init__(self, components: DiffusionComponents, **options: int) -> None:
        self.forwards = 0
        self.encoder = PromptEncoder(components.tokenizer, components.text_encoder, CPU, **options)
        self.handle = components.text_encoder.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.forwards += 1


@torch.inference_mode()
def test_a_text_is_encoded_once(components: DiffusionComponents) -> None:
    counted = Counted(components)
    first = counted.encoder.encode("the red fox")
    other = counted.encoder.encode("")
    again = counted.encoder.encode("the red fox")
    counted.handle.remove()

    assert counted.forwards == 2
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@torch.inference_mode()
def test_the_cache_forgets_what_was_not_asked_for_the_longest(components: DiffusionComponents) -> None:
    size = PromptEncoder(components.tokenizer, components.text_encoder, CPU).encode("a").nbytes
    counted = Counted(components, cache_bytes=2 * size)
    for prompt in ["a", "b", "a", "c", "a"]:
        counted.encoder.encode(prompt)
    assert counted.forwards == 3
    counted.encoder.encode("b")
    counted.handle.remove()

    assert counted.forwards == 4


@torch.inference_mode()
def test_a_text_larger_than_the_cache_is_encoded_all_the_same(components: DiffusionComponents) -> None:
    encoder = PromptEncoder(components.tokenizer, components.text_encoder, CPU, cache_bytes=1)
    assert encoder.encode("fox").shape == encoder.encode("dog").shape


@torch.inference_mode()
@pytest.mark.parametrize("clip_skip", [None, 1])
def test_skipped_layers_are_those_of_diffusers(components: DiffusionComponents, clip_skip: int | None) -> None:
    fields = {name: getattr(components, name) for name in components.__dataclass_fields__}
    config = fields.pop("noise_scheduler_config")
    scheduler = DDIMScheduler.from_config(dict(config))
    pipeline = StableDiffusionPipeline(**fields, scheduler=scheduler, requires_safety_checker=False)
    vars(components.text_encoder)["text_model"] = components.text_encoder  # diffusers looks for transformers 4's name
    wanted, _ = pipeline.encode_prompt("the red fox", CPU, 1, False, clip_skip=clip_skip)
    del vars(components.text_encoder)["text_model"]
    encoder = PromptEncoder(components.tokenizer, components.text_encoder, CPU)
    assert torch.equal(encoder.encode("the red fox", Reading(clip_skip=clip_skip)), wanted)


@torch.inference_mode()
def test_layers_that_are_not_there_are_refused(components: DiffusionComponents) -> None:
    encoder = PromptEncoder(components.tokenizer, components.text_encoder, CPU)
    with pytest.raises(Invalid) as refused:
        encoder.encode("the red fox", Reading(clip_skip=components.text_encoder.config.num_hidden_layers))
    assert refused.value.code == "clip_skip_not_supported"


class Reference:
    """Weighted prompts written out by hand with the tokenizer and the text encoder alone."""

    def __init__(self, components: DiffusionComponents) -> None:
        self.tokenizer, self.model = components.tokenizer, components.text_encoder

    def chunk(self, parts: list[tuple[str, float]]) -> torch.Tensor:
        """The embedding of parts that fit into one text, times their weights."""
        ids = [self.tokenizer(text, add_special_tokens=False).input_ids for text, _ in parts]
        weights = [1.0] + [weight for own, (_, weight) in zip(ids, parts, strict=True) for _ in own]
        text = [self.tokenizer.bos_token_id, *(token for own in ids for token in own), self.tokenizer.eos_token_id]
        text += [self.tokenizer.pad_token_id] * (self.tokenizer.model_max_length - len(text))
        embeds: torch.Tensor = self.model(torch.tensor([text]))[0].clone()
        for position, weight in enumerate(weights):
            embeds[0, position] *= weight
        return embeds


@torch.inference_mode()
def test_weighted_prompts_are_plain_ones_times_their_weights(components: DiffusionComponents) -> None:
    encoder, reference = PromptEncoder(components.tokenizer, components.text_encoder, CPU), Reference(components)
    weighted = Reading(is_weighted=True)
    for text in ("the red fox", "", "a fox in snow"):
        assert torch.equal(encoder.encode(text, weighted), encoder.encode(text)), "without brackets nothing changes"
    assert not torch.equal(encoder.encode("the (red) fox", weighted), encoder.encode("the (red) fox"))
    mixed = encoder.encode(r"the ((red)) [fox:2\) (in snow:0.5)", weighted)
    wanted = reference.chunk(
        [("the ", 1.0), ("red", 1.1 * 1.1), (" ", 1.0), ("fox:2) ", 1 / 1.1), ("in snow", 0.5 / 1.1)]
    )
    torch.testing.assert_close(mixed, wanted, rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_long_prompts_are_read_in_chunks_and_cut_behind_the_last(components: DiffusionComponents) -> None:
    encoder, reference = PromptEncoder(components.tokenizer, components.text_encoder, CPU), Reference(components)
    tokenizer, weighted = components.tokenizer, Reading(is_weighted=True)
    room = tokenizer.model_max_length - 2
    per_word = len(tokenizer("fox ", add_special_tokens=False).input_ids)
    words = room // per_word  # of one chunk, if they fill it
    if room % per_word:
        pytest.skip("this tokenizer's words do not fill a chunk")
    long = "(" + "fox " * (words + 1) + ":1.5)"
    embeds = encoder.encode(long, weighted)
    wanted = [reference.chunk([("fox " * words, 1.5)]), reference.chunk([("fox", 1.5)])]
    torch.testing.assert_close(embeds, torch.cat(wanted, dim=1), rtol=1e-6, atol=1e-6)
    assert encoder.cut(long, weighted) is None
    assert encoder.cut("fox " * (4 * words) + "(dog) and cat", weighted) == "dog and cat"
    both = encoder.encode_alike(["", long], weighted)
    assert both.shape[:2] == (2, 2 * tokenizer.model_max_length)
    assert torch.equal(both[:1], torch.cat([encoder.encode("")] * 2, dim=1)), "the shorter one is filled up"
