"""The prompt encoder's cache: the same embeddings, made once, within its bytes."""

from typing import Any

import pytest
import torch

from app.engine.diffusion.prompts import PromptEncoder
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
