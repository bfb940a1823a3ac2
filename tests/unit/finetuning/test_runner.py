"""Fine-tuning as a model of the real engine: turns with another model, epochs that are asked for again, faults."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image
from safetensors.torch import load_file, save_file

from app.engine.engine import Engine
from app.engine.request import EngineRequest, Priority
from app.errors import AppError
from app.finetuning.checkpoints import LAST, load_fine_tuned
from app.finetuning.errors import BadFineTune, FineTuneDiverged, ForeignCheckpoint, UnreadablePicture
from app.finetuning.plan import BackboneSpec, Example, FineTunePlan
from app.finetuning.runner import EpochPayload, FineTuneRunner, ModelPayload
from app.modelpacks.preprocessing import Preprocessing
from testing.fakes import FakePayload, FakeRunner
from testing.fine_tuning import CPU, MODEL, carry_out, decode, make_plan
from testing.waiting import PATIENCE_S

FINE_TUNE, OTHER = "fine-tune", "other"


class OrderedRunner(FakeRunner):
    """Notes its steps in a list that others write, too."""

    def __init__(self, said: list[str]) -> None:
        super().__init__()
        self._said = said

    def step(self, requests: Any) -> None:
        super().step(requests)
        self._said.append("other")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def engine(runner: FineTuneRunner, said: list[str]) -> Iterator[Engine]:
    engine, is_loaded = Engine(), threading.Event()
    engine.add_model(FINE_TUNE, lambda: runner, max_rows=1)
    engine.add_model(OTHER, lambda: OrderedRunner(said), max_rows=1)

    def last() -> FakeRunner:
        is_loaded.set()
        return FakeRunner()

    engine.add_model("last", last)
    engine.start()
    assert is_loaded.wait(PATIENCE_S)
    yield engine
    engine.close()


def submit(
    engine: Engine,
    payload: EpochPayload | ModelPayload,
    on_step: Callable[[int, int], None] | None = None,
) -> "Future[Any]":
    return engine.submit(FINE_TUNE, payload, priority=Priority.BACKGROUND, cost=payload.cost, on_step=on_step)


def test_interactive_requests_are_served_between_two_optimizer_steps(
    engine: Engine, plan: FineTunePlan, tmp_path: Path, said: list[str]
) -> None:
    served: list[Future[Any]] = []

    def on_step(done: int, total: int) -> None:
        said.append(f"step {done} of {total}")
        served.append(engine.submit(OTHER, FakePayload()))

    submit(engine, EpochPayload(plan, tmp_path / "files", 1), on_step).result(PATIENCE_S)
    for future in served:
        future.result(PATIENCE_S)
    # 14 training pictures and 6 validation pictures in batches of 4.
    assert said == [entry for step in range(1, 7) for entry in (f"step {step} of 6", "other")]


def test_two_fine_tunings_take_turns_and_disturb_neither(engine: Engine, tmp_path: Path) -> None:
    plans = [make_plan(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two"))]
    for epoch in (1, 2, 3):
        futures = [submit(engine, EpochPayload(plan, plan.weights.parent / "files", epoch)) for plan in plans]
        assert [future.result(PATIENCE_S).is_over for future in futures] == [epoch == 3] * 2
    for plan in plans:
        folder = plan.weights.parent
        together = submit(engine, ModelPayload(plan, folder / "files", folder / MODEL)).result(PATIENCE_S)
        alone = carry_out(plan, folder / "alone")
        assert together.file.sha256 == alone.file.sha256


def test_an_epoch_that_ended_is_not_trained_again(engine: Engine, plan: FineTunePlan, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    results = [submit(engine, EpochPayload(plan, folder, epoch)).result(PATIENCE_S) for epoch in (1, 2)]
    written = (folder / LAST).read_bytes()
    assert [submit(engine, EpochPayload(plan, folder, epoch)).result(PATIENCE_S) for epoch in (1, 2)] == results
    assert (folder / LAST).read_bytes() == written


def test_an_epoch_without_the_one_before_is_refused(engine: Engine, plan: FineTunePlan, tmp_path: Path) -> None:
    with pytest.raises(ForeignCheckpoint):
        submit(engine, EpochPayload(plan, tmp_path / "files", 2)).result(PATIENCE_S)


def test_a_cancelled_epoch_leaves_the_engine_at_the_next_step(
    engine: Engine, plan: FineTunePlan, tmp_path: Path
) -> None:
    taken: list[int] = []
    has_stepped, may_go_on = threading.Event(), threading.Event()

    def on_step(done: int, _total: int) -> None:
        taken.append(done)
        has_stepped.set()
        may_go_on.wait(PATIENCE_S)

    future = submit(engine, EpochPayload(plan, tmp_path / "files", 1), on_step)
    assert has_stepped.wait(PATIENCE_S)
    future.cancel()
    may_go_on.set()
    engine.submit(FINE_TUNE, EpochPayload(plan, tmp_path / "files", 1)).result(PATIENCE_S)
    assert taken == [1]


def test_the_model_answers_for_its_pictures(engine: Engine, plan: FineTunePlan, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    submit(engine, EpochPayload(plan, folder, 1)).result(PATIENCE_S)
    result = submit(engine, ModelPayload(plan, folder, tmp_path / MODEL, plan.train)).result(PATIENCE_S)
    model = load_fine_tuned(tmp_path / MODEL)
    transform = Preprocessing.from_config(plan.preprocessing).transform()
    with torch.inference_mode():
        pixels = torch.stack([transform(decode(one.path.read_bytes())) for one in plan.train])
        expected = model.head(model.backbone(pixels)).softmax(dim=1).numpy()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    nothing = submit(engine, ModelPayload(plan, folder, tmp_path / MODEL)).result(PATIENCE_S)
    assert nothing.probabilities.shape == (0, 2)
    assert nothing.file == result.file


def test_a_torchvision_resnet_is_fine_tuned(engine: Engine, plan: FineTunePlan, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "resnet.safetensors")
    plan = replace(plan, backbone=BackboneSpec("torchvision", "resnet18"), weights=tmp_path / "resnet.safetensors")
    submit(engine, EpochPayload(plan, tmp_path / "files", 1)).result(PATIENCE_S)
    trained = load_file(tmp_path / "files" / "kept-1.safetensors")
    assert trained["fc.weight"].shape == (2, 512)
    assert {name.split(".")[1] for name in trained if name.startswith("backbone.")} == {"layer4"}


Change = Callable[[FineTunePlan, Path], FineTunePlan]


def with_broken(plan: FineTunePlan, folder: Path) -> FineTunePlan:
    (folder / "broken.png").write_bytes(b"no picture")
    return replace(plan, train=(*plan.train, Example(folder / "broken.png", 0, "broken")))


def with_missing(plan: FineTunePlan, folder: Path) -> FineTunePlan:
    return replace(plan, validation=(*plan.validation, Example(folder / "missing.png", 0, "missing")))


def with_one_class(plan: FineTunePlan, _: Path) -> FineTunePlan:
    only = tuple(one for one in plan.train if one.label == 0)
    return replace(plan, classes=("green",), train=only, validation=())


def with_empty_class(plan: FineTunePlan, _: Path) -> FineTunePlan:
    return replace(plan, classes=("green", "red", "blue"))


def without_validation(plan: FineTunePlan, _: Path) -> FineTunePlan:
    return replace(plan, validation=(), settings=replace(plan.settings, patience=2))


def with_high_lr(plan: FineTunePlan, _: Path) -> FineTunePlan:
    return replace(plan, settings=replace(plan.settings, lr=1e6, warmup_epochs=0))


def with_unknown_network(plan: FineTunePlan, _: Path) -> FineTunePlan:
    return replace(plan, backbone=BackboneSpec("timm", "no_such_network"))


def with_fp16(plan: FineTunePlan, _: Path) -> FineTunePlan:
    return replace(plan, settings=replace(plan.settings, mixed_precision="fp16"))


@pytest.mark.parametrize(
    ("change", "error", "code", "words"),
    [
        (with_broken, UnreadablePicture, "image_file_damaged", "broken.png cannot be decoded"),
        (with_missing, UnreadablePicture, "image_file_missing", "missing.png is gone"),
        (with_one_class, BadFineTune, "too_few", "two classes"),
        (with_empty_class, BadFineTune, "class_without_images", "no training images"),
        (without_validation, BadFineTune, "dataset_empty", "validation images"),
        (with_high_lr, FineTuneDiverged, "diverged", "smaller learning rate"),
        (with_unknown_network, BadFineTune, "invalid_request", "cannot be fine-tuned"),
        (with_fp16, BadFineTune, "invalid_request", "precision"),
    ],
)
def test_a_fault_has_a_code_and_the_engine_goes_on(
    engine: Engine, plan: FineTunePlan, tmp_path: Path, change: Change, error: type[AppError], code: str, words: str
) -> None:
    changed = change(plan, tmp_path)
    with pytest.raises(error) as caught:
        submit(engine, EpochPayload(changed, tmp_path / "files", 1)).result(PATIENCE_S)
    assert caught.value.code == code
    assert words in caught.value.detail
    assert not (tmp_path / "files" / LAST).exists()
    submit(engine, EpochPayload(plan, tmp_path / "files", 1)).result(PATIENCE_S)


def test_a_step_without_memory_says_so(plan: FineTunePlan, tmp_path: Path) -> None:
    def decode_too_much(data: bytes) -> Image.Image:
        raise torch.OutOfMemoryError("a secret of the device")

    runner = FineTuneRunner(device=CPU, decode=decode_too_much)
    request = EngineRequest(FINE_TUNE, EpochPayload(plan, tmp_path / "files", 1))
    runner.prepare(request)
    with pytest.raises(BadFineTune, match="smaller batch"):
        runner.step([request])
    runner.close()
