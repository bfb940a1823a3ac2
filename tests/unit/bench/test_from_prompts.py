"""The bench of the preset: its test pictures, its tasks' rows, and what it says where the pictures are absent."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.services.images.hand_views import LOOKS
from app.training.from_prompts import PromptRows
from app.training.zero_shot import zero_shot_head
from bench.from_prompts import __main__ as command
from bench.from_prompts.emoji import load_emoji
from bench.from_prompts.material import rows_of
from bench.from_prompts.tasks import make_tasks, measure
from demo_pack.drawing.world import CLASSES


def test_absent_pictures_are_said_aloud_and_are_no_success(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--data", str(tmp_path / "absent")]) == 2
    assert "SKIPPED" in capsys.readouterr().err


def test_pictures_carry_their_class_and_their_set(tmp_path: Path) -> None:
    for name in ("dog/noto__dog.png", "fox/noto__fox.png", "fox/fxemoji__fox.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGBA", (4, 4)).save(path)
    test = load_emoji(tmp_path, ["fox", "dog"])
    assert test.labels.tolist() == [0, 0, 1]
    assert test.sets == ["fxemoji", "noto", "noto"]
    assert {image.mode for image in test.images} == {"RGB"}


def test_the_tasks_are_those_of_the_issue() -> None:
    five, animals, everything = make_tasks(CLASSES)
    assert (len(five.class_names), len(animals.class_names), len(everything.class_names)) == (5, 5, 18)
    assert (five.target, animals.target, everything.target) == (0.82, 0.72, 0.72)


def _rows(num_images: int, num_classes: int) -> PromptRows:
    each = 1 + len(LOOKS)
    labels = np.repeat(np.arange(num_images) % num_classes, each)
    rng = np.random.default_rng(0)
    points = {name: np.eye(num_classes, 8)[labels] + 0.2 * rng.normal(size=(len(labels), 8)) for name in _NAMES}
    is_view = np.tile(np.arange(each) > 0, num_images)
    features = {name: rows.astype(np.float32) for name, rows in points.items()}
    return PromptRows(features, labels, is_view, np.ones(len(labels), np.bool_))


_NAMES = ("resnet18", "photo", "clip")


def test_a_task_has_its_own_numbers_and_its_own_filter() -> None:
    texts = np.eye(4, 8, dtype=np.float32)
    rows = _rows(20, 4)
    # the first image of class 2 looks like class 3 to CLIP: rejected where class 3 competes, kept where it does not
    each = 1 + len(LOOKS)
    rows.features["clip"][2 * each : 3 * each] = [0, 0, 0.2, 1, 0, 0, 0, 0]
    with_rival, without = (
        rows_of(rows, indexes, zero_shot_head([texts[[index]] for index in indexes], 20.0))
        for indexes in ([2, 3], [2, 0])
    )
    assert sorted(set(with_rival.labels.tolist())) == [0, 1]
    assert not with_rival.is_kept[:each].any()
    assert without.is_kept.all()


def test_the_table_has_the_baseline_first_and_each_part_switched_off() -> None:
    rows = _rows(24, 3)
    head = zero_shot_head([np.eye(3, 8, dtype=np.float32)[[index]] for index in range(3)], 10.0)
    test = _rows(9, 3)
    sets = [f"set {index % 2}" for index in range(len(test.labels))]
    lines = measure(rows, head, test.features, test.features, test.labels, sets)
    names = [line.name for line in lines]
    assert names[:2] == ["CLIP zero-shot", "from_prompts, all parts on"]
    assert len([name for name in names if name.startswith("without ")]) == 8
    assert set(lines[1].by_set or {}) == {"set 0", "set 1"}
    assert all(line.against_zero_shot is not None for line in lines[1:])
