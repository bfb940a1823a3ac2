"""Settings and plans: what is refused, the learning rate by step, precision, and the file of a plan."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from app.finetuning.errors import BadFineTune, DamagedWeights
from app.finetuning.plan import FineTunePlan
from app.finetuning.precision import Precision, resolve_precision
from app.finetuning.settings import AugmentSettings, FineTuneSettings
from testing.fine_tuning import CPU, make_plan


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"patience": 0},
        {"warmup_epochs": -1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"backbone_lr_factor": 0.0},
        {"weight_decay": -1.0},
        {"momentum": 1.0},
        {"label_smoothing": 1.0},
        {"ema_decay": 1.0},
        {"augment": AugmentSettings(area=(0.0, 1.0))},
        {"augment": AugmentSettings(area=(0.9, 0.5))},
        {"augment": AugmentSettings(ratio=(0.0, 1.0))},
        {"augment": AugmentSettings(colour=1.0)},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadFineTune):
        FineTuneSettings(**wrong).check()
    FineTuneSettings().check()


def test_the_learning_rate_rises_and_falls_by_step() -> None:
    settings = FineTuneSettings(epochs=3, warmup_epochs=1)
    factors = [settings.lr_factor(step, 4) for step in range(12)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[8] == pytest.approx(0.5)
    assert all(before > after > 0 for before, after in itertools.pairwise(factors[4:]))
    constant = FineTuneSettings(epochs=1, warmup_epochs=5, schedule="constant")
    assert [constant.lr_factor(step, 4) for step in range(4)] == [1.0] * 4


@pytest.mark.parametrize("augment", [None, AugmentSettings(area=(0.2, 0.9), colour=0.1)])
def test_a_plan_is_read_back_from_its_file(tmp_path: Path, augment: AugmentSettings | None) -> None:
    plan = make_plan(tmp_path, augment=augment, ema_decay=0.9)
    assert FineTunePlan.from_bytes(plan.to_bytes()) == plan
    assert FineTunePlan.from_bytes(plan.to_bytes()).fingerprint == plan.fingerprint


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"settings": {}}', b"\xff"])
def test_another_file_is_no_plan(data: bytes) -> None:
    with pytest.raises(DamagedWeights):
        FineTunePlan.from_bytes(data)


def test_a_cpu_trains_in_float32_unless_asked() -> None:
    assert (resolve_precision("auto", CPU), resolve_precision("no", CPU)) == ("no", "no")
    with pytest.raises(BadFineTune):
        resolve_precision("fp16", CPU)


def test_two_precisions_of_one_process_do_not_mix() -> None:
    layer = torch.nn.Linear(4, 2)
    half, full = (Precision(name, CPU, torch.optim.SGD(layer.parameters(), lr=0.1)) for name in ("bf16", "no"))
    for _ in range(2):
        with half.autocast():
            assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
        with full.autocast():
            assert layer(torch.ones(1, 4)).dtype == torch.float32


@pytest.mark.parametrize("name", ["no", "bf16"])
def test_a_step_descends_in_any_precision(name: str) -> None:
    layer = torch.nn.Linear(4, 1)
    precision = Precision(name, CPU, torch.optim.SGD(layer.parameters(), lr=0.1))  # type: ignore[arg-type]
    losses = []
    for _ in range(20):
        with precision.autocast():
            outputs = layer(torch.ones(1, 4)).float()
        losses.append(float((outputs - 3).pow(2).mean().detach()))
        precision.descend((outputs - 3).pow(2).mean())
    assert losses[-1] < 0.1 * losses[0]
    assert layer.weight.dtype == torch.float32
    assert precision.scale == {}
