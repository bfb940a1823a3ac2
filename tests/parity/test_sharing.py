"""Sixteen requests that come while a forward runs share the next two: counted by a hook on the real models."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from PIL import Image

from app.engine.clip.runner import ClipPreparation, ClipRunner
from app.engine.engine import Engine
from app.engine.resnet import BackboneRunner, ClassifierRunner, ClassifyPayload, FeaturePayload
from app.engine.runner import Runner
from app.modelpacks.loading import load_backbone, load_classifier, load_clip
from app.modelpacks.pack import ModelPack
from app.services.inference.loading import CPU_ONE_STEP_ROWS
from testing.waiting import PATIENCE_S
from tests.parity.conftest import CPU

PICTURES = [Image.new("RGB", (40, 30), (number, 255 - number, 9 * number)) for number in range(17)]


def clip(pack: ModelPack) -> tuple[Runner, torch.nn.Module, list[Any]]:
    parts = load_clip(pack, CPU)
    prepare = ClipPreparation(parts.processor, max_tokens=77)
    payloads = [prepare(picture, [f"picture {i}", "a fox"]) for i, picture in enumerate(PICTURES)]
    return ClipRunner(model=parts.model, device=CPU), parts.model.vision_model.embeddings.patch_embedding, payloads


def classifier(pack: ModelPack) -> tuple[Runner, torch.nn.Module, list[Any]]:
    parts = load_classifier(pack, CPU)
    payloads = [ClassifyPayload(parts.preprocess(picture)) for picture in PICTURES]
    return ClassifierRunner(model=parts.model, device=CPU), parts.model.get_submodule("maxpool"), payloads


def backbone(pack: ModelPack) -> tuple[Runner, torch.nn.Module, list[Any]]:
    parts = load_backbone(pack, CPU)
    payloads = [FeaturePayload(parts.preprocess(picture)) for picture in PICTURES]
    return BackboneRunner(model=parts.model, device=CPU), parts.model.get_submodule("maxpool"), payloads


def signal_loaded(is_loaded: threading.Event, runner: Runner) -> Runner:
    is_loaded.set()
    return runner


@contextmanager
def running(runner: Runner) -> Iterator[Engine]:
    engine, is_loaded = Engine(), threading.Event()
    engine.add_model("model", lambda: runner, max_rows=CPU_ONE_STEP_ROWS)
    engine.add_model("last", lambda: signal_loaded(is_loaded, runner))
    engine.start()
    assert is_loaded.wait(PATIENCE_S)
    try:
        yield engine
    finally:
        engine.close()


@pytest.mark.parametrize("make", [clip, classifier, backbone])
def test_requests_that_come_during_a_forward_share_the_next_ones(
    tiny_pack: ModelPack, make: Callable[[ModelPack], tuple[Runner, torch.nn.Module, Sequence[Any]]]
) -> None:
    runner, first_layer, payloads = make(tiny_pack)
    rows: list[int] = []
    has_begun, may_go_on = threading.Event(), threading.Event()

    def count(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        rows.append(len(inputs[0]))
        has_begun.set()
        assert may_go_on.wait(PATIENCE_S)

    first_layer.register_forward_pre_hook(count)
    with running(runner) as engine:
        futures = [engine.submit("model", payloads[0])]
        assert has_begun.wait(PATIENCE_S)
        futures += [engine.submit("model", payload) for payload in payloads[1:]]
        may_go_on.set()
        for future in futures:
            future.result(PATIENCE_S)
    assert rows == [1, 8, 8]
