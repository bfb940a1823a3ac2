"""The files of a fine-tuning: what continues from them, what is refused, what stays after a full disk."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from app.errors import AppError, StorageFull
from app.finetuning.checkpoints import (
    LAST,
    bytes_needed,
    check_room,
    load_checkpoint,
    load_fine_tuned,
    load_kept,
    save_checkpoint,
    save_fine_tuned,
)
from app.finetuning.errors import DamagedWeights, ForeignCheckpoint, NoRoomForWeights
from app.finetuning.plan import BackboneSpec, FineTunePlan
from app.finetuning.progress import FineTuneEpoch, Progress
from app.finetuning.session import FineTune
from testing.fine_tuning import SIDE, make_plan, make_session, run_epoch
from testing.small_disk import SmallDisk, small_disk

MEGABYTE = 2**20


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with small_disk(16) as disk:
        yield disk


def epochs_in(session: FineTune, folder: Path, count: int) -> FineTune:
    for _ in range(count):
        run_epoch(session)
        save_checkpoint(folder, session)
    return session


def reopened(plan: FineTunePlan, folder: Path, pool: ThreadPoolExecutor) -> FineTune:
    checkpoint = load_checkpoint(folder, plan)
    assert checkpoint is not None
    session = make_session(plan, pool)
    session.restore(checkpoint.tensors, checkpoint.numbers)
    return session


def model_bytes(plan: FineTunePlan, folder: Path) -> bytes:
    return save_fine_tuned(folder / "model.safetensors", *load_kept(folder, plan)[:1], plan, 3).path.read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "last_block"},
        {"mode": "all", "optimizer": "adamw", "lr": 0.002, "ema_decay": 0.9},
        {"mode": "head", "patience": 2},
    ],
)
def test_a_session_continues_from_its_checkpoint(
    tmp_path: Path, pool: ThreadPoolExecutor, settings: dict[str, Any]
) -> None:
    plan = make_plan(tmp_path / "in", **settings)
    unbroken = epochs_in(make_session(plan, pool), tmp_path / "unbroken", 3)
    epochs_in(make_session(plan, pool), tmp_path / "broken", 1)
    for _ in range(2):
        broken = epochs_in(reopened(plan, tmp_path / "broken", pool), tmp_path / "broken", 1)

    assert model_bytes(plan, tmp_path / "broken") == model_bytes(plan, tmp_path / "unbroken")
    with_times = [replace(one, elapsed_ms=0) for one in unbroken.progress.epochs]
    assert [replace(one, elapsed_ms=0) for one in broken.progress.epochs] == with_times


def test_two_files_remain_whatever_the_number_of_epochs(
    plan: FineTunePlan, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    epochs_in(make_session(plan, pool), tmp_path / "files", 3)
    assert sorted(path.name for path in (tmp_path / "files").rglob("*") if path.is_file()) == [
        "kept-3.safetensors",
        "last.safetensors",
    ]
    trained = load_file(tmp_path / "files" / "kept-3.safetensors")
    assert {"fc.weight", "backbone.conv_head.weight"} < set(trained)
    assert "backbone.conv_stem.weight" not in trained


def test_no_checkpoint_is_none(plan: FineTunePlan, tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing", plan) is None
    with pytest.raises(ForeignCheckpoint):
        load_kept(tmp_path / "nothing", plan)


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: replace(plan, settings=replace(plan.settings, seed=7)),
        lambda plan: replace(plan, train=plan.train[:-1]),
        lambda plan: replace(plan, weights_sha256="others"),
        lambda plan: replace(plan, train=(replace(plan.train[0], key="other bytes"), *plan.train[1:])),
    ],
)
def test_a_checkpoint_of_another_plan_is_refused(
    plan: FineTunePlan, tmp_path: Path, pool: ThreadPoolExecutor, change: Callable[[FineTunePlan], FineTunePlan]
) -> None:
    epochs_in(make_session(plan, pool), tmp_path / "files", 1)
    with pytest.raises(ForeignCheckpoint) as caught:
        load_checkpoint(tmp_path / "files", change(plan))
    assert (caught.value.status, caught.value.code) == (409, "file_changed")


def test_a_checkpoint_is_that_of_its_plan_in_another_folder(
    plan: FineTunePlan, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    epochs_in(make_session(plan, pool), tmp_path / "files", 1)
    moved = replace(plan, train=tuple(replace(one, path=Path("/elsewhere") / one.path.name) for one in plan.train))
    assert load_checkpoint(tmp_path / "files", moved) is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: data[: len(data) // 2],
        lambda _: b"",
        lambda _: b"not safetensors",
    ],
    ids=["one bit", "half", "empty", "another format"],
)
def test_a_damaged_checkpoint_is_refused(
    plan: FineTunePlan, tmp_path: Path, pool: ThreadPoolExecutor, damage: Callable[[bytes], bytes]
) -> None:
    epochs_in(make_session(plan, pool), tmp_path / "files", 1)
    path = tmp_path / "files" / LAST
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedWeights) as caught:
        load_checkpoint(tmp_path / "files", plan)
    assert (caught.value.status, caught.value.code) == (410, "model_file_damaged")


def test_safetensors_of_others_are_no_checkpoint(plan: FineTunePlan, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes(plan.weights.read_bytes())
    with pytest.raises(DamagedWeights):
        load_checkpoint(tmp_path, plan)


def test_the_kept_epoch_is_the_best_one_when_there_is_patience(plan: FineTunePlan) -> None:
    settings = replace(plan.settings, patience=2, epochs=9)

    def after(losses: list[float]) -> Progress:
        progress = Progress(first_loss=0.7)
        for number, loss in enumerate(losses, 1):
            progress = progress.with_epoch(FineTuneEpoch(number, 1, 1, loss, 1, 1, 1), settings)
        return progress

    assert (after([3, 1, 2]).kept_epoch, after([3, 1, 2]).is_over(settings)) == (2, False)
    assert (after([3, 1, 2, 1]).kept_epoch, after([3, 1, 2, 1]).is_over(settings)) == (2, True)
    assert after([3, 1, 2, 0.5]).up_to(3, settings) == after([3, 1, 2])
    assert after([3.0] * 2).is_over(replace(settings, epochs=2))


def test_the_best_epochs_weights_are_loaded(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    # The better the head learns, the worse it is on validation pictures under the opposite labels.
    plan = make_plan(tmp_path / "in", mode="head", patience=2)
    plan = replace(plan, validation=tuple(replace(one, label=1 - one.label) for one in plan.validation))
    session = make_session(plan, pool)
    weights = {}
    for epoch in (1, 2, 3):
        epochs_in(session, tmp_path / "files", 1)
        weights[epoch] = session.trainer.kept_weights()["fc.weight"]
    losses = [epoch.validation_loss or 0.0 for epoch in session.progress.epochs]
    best = 1 + losses.index(min(losses))
    assert best < 3
    classifier, epoch = load_kept(tmp_path / "files", plan)
    assert epoch == best
    assert torch.equal(classifier.fc.weight, weights[best])


def test_the_model_loads_as_it_was_and_in_plain_timm(
    plan: FineTunePlan, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    session = epochs_in(make_session(plan, pool), tmp_path / "files", 1)
    classifier, epoch = load_kept(tmp_path / "files", plan)
    file = save_fine_tuned(tmp_path / "model.safetensors", classifier, plan, epoch)
    pixels = torch.randn(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    expected = session.trainer.predict(pixels)

    model = load_fine_tuned(file.path)
    assert (model.classes, model.preprocessing.crop, model.facts["mode"]) == (plan.classes, SIDE, "last_block")
    assert file.num_bytes == file.path.stat().st_size
    with torch.inference_mode():
        torch.testing.assert_close(model.head(model.backbone(pixels)), expected)

        tensors = load_file(file.path)
        plain = timm.create_model("test_efficientnet", num_classes=2)
        renamed = {
            name.replace("backbone.", "").replace("fc.", "classifier."): tensor for name, tensor in tensors.items()
        }
        plain.load_state_dict(renamed)
        torch.testing.assert_close(plain.eval()(pixels), expected)


def test_a_file_that_is_no_model_is_refused(plan: FineTunePlan, tmp_path: Path) -> None:
    for path in (plan.weights, tmp_path / "missing"):
        with pytest.raises(DamagedWeights):
            load_fine_tuned(path)


def test_weights_of_another_network_are_refused(plan: FineTunePlan, pool: ThreadPoolExecutor) -> None:
    with pytest.raises(DamagedWeights):
        make_session(replace(plan, backbone=BackboneSpec("timm", "test_resnet")), pool)


@pytest.mark.parametrize(
    "settings", [{"mode": "head"}, {"mode": "all", "optimizer": "adamw", "ema_decay": 0.9}, {"patience": 1}]
)
def test_the_files_need_no_more_than_was_said(
    tmp_path: Path, pool: ThreadPoolExecutor, settings: dict[str, Any]
) -> None:
    plan = make_plan(tmp_path / "in", **settings)
    epochs_in(make_session(plan, pool), tmp_path / "files", 2)
    model_bytes(plan, tmp_path / "files")
    size = {path.name: path.stat().st_size for path in (tmp_path / "files").glob("*.safetensors")}
    kept = max(num for name, num in size.items() if name.startswith("kept"))
    at_once = 2 * size[LAST] + 2 * kept + size["model.safetensors"]
    headers = 40_000
    assert at_once - 5 * headers <= bytes_needed(plan) <= at_once


def test_a_disk_without_room_is_refused_before_the_start(plan: FineTunePlan, disk: SmallDisk) -> None:
    check_room(disk.root / "files", plan)
    disk.fill(leave_bytes=MEGABYTE)
    with pytest.raises(NoRoomForWeights) as caught:
        check_room(disk.root / "files", plan)
    assert (caught.value.status, caught.value.code) == (507, "storage_full")
    assert "MB" in caught.value.detail


@pytest.mark.parametrize("free_kilobytes", [0, 100, 400])
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    plan: FineTunePlan, tmp_path: Path, pool: ThreadPoolExecutor, disk: SmallDisk, free_kilobytes: int
) -> None:
    folder = disk.root / "files"
    session = epochs_in(make_session(plan, pool), folder, 1)
    disk.fill(leave_bytes=free_kilobytes * 1024)
    run_epoch(session)
    with pytest.raises(StorageFull):
        save_checkpoint(folder, session)
    assert not list((folder / ".tmp").iterdir())
    again = reopened(plan, folder, pool)
    assert len(again.progress.epochs) == 1
    load_kept(folder, plan)

    disk.make_room()
    epochs_in(again, folder, 2)
    epochs_in(make_session(plan, pool), tmp_path / "unbroken", 3)
    assert model_bytes(plan, folder) == model_bytes(plan, tmp_path / "unbroken")


def test_a_model_that_does_not_fit_leaves_nothing(
    plan: FineTunePlan, pool: ThreadPoolExecutor, disk: SmallDisk
) -> None:
    epochs_in(make_session(plan, pool), disk.root / "files", 1)
    disk.fill(leave_bytes=100_000)
    with pytest.raises(AppError) as caught:
        model_bytes(plan, disk.root / "files")
    assert caught.value.code == "storage_full"
    assert not (disk.root / "files" / "model.safetensors").exists()
