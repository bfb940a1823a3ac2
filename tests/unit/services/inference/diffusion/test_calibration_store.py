"""The measurement on disk: taken over under the same circumstances, and otherwise as good as none."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.engine.diffusion.calibration import Calibration
from app.engine.diffusion.options import RowPadding
from app.services.inference.diffusion.calibration_store import MAX_AGE_S, MAX_BYTES, CalibrationFile, is_busy

FOUND = Calibration({2: 0.1, 3: 0.15, 4: 0.15}, RowPadding((2, 4)), is_invariant=True)
CIRCUMSTANCES = {"device": "cpu", "threads": 2, "sizes": (2, 4)}
NOW = 1_000_000.0


def file_at(path: Path, now: float = NOW, **changes: object) -> CalibrationFile:
    return CalibrationFile(path / "packs" / "calibration.json", {**CIRCUMSTANCES, **changes}, lambda: now)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    assert file_at(tmp_path).read() is None
    file_at(tmp_path).write(FOUND)
    assert file_at(tmp_path, now=NOW + 1).read() == FOUND
    assert [file.name for file in (tmp_path / "packs").iterdir()] == ["calibration.json"]


def test_under_other_circumstances_it_is_not_used_and_the_next_measurement_replaces_it(tmp_path: Path) -> None:
    file_at(tmp_path).write(FOUND)
    assert file_at(tmp_path, threads=4).read() is None
    assert file_at(tmp_path, torch="3").read() is None
    file_at(tmp_path, threads=4).write(FOUND)
    assert file_at(tmp_path, threads=4).read() == FOUND
    assert file_at(tmp_path).read() is None


@pytest.mark.parametrize("later", [MAX_AGE_S, -1.0])
def test_an_old_one_or_one_from_the_future_is_not_used(tmp_path: Path, later: float) -> None:
    file_at(tmp_path).write(FOUND)
    assert file_at(tmp_path, now=NOW + later).read() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": {}},
        {"seconds": {"2": 0}},
        {"seconds": {"2": float("nan")}},
        {"seconds": {"two": 1.0}},
        {"seconds": [1.0]},
        {"sizes": []},
        {"sizes": [4, 2]},
        {"sizes": [0, 2]},
        {"sizes": [2, 1_000_000]},
        {"sizes": None},
        {"measured_at": None},
    ],
)
def test_content_that_cannot_be_true_is_not_used(tmp_path: Path, changes: dict[str, Any]) -> None:
    file_at(tmp_path).write(FOUND)
    path = tmp_path / "packs" / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert file_at(tmp_path).read() is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b" " * (MAX_BYTES + 1) + b"{}"])
def test_a_broken_file_is_not_used(tmp_path: Path, content: bytes) -> None:
    file_at(tmp_path).write(FOUND)
    (tmp_path / "packs" / "calibration.json").write_bytes(content)
    assert file_at(tmp_path).read() is None


def test_where_nothing_can_be_written_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "packs").write_text("a file where the folder should be")
    file_at(tmp_path).write(FOUND)
    assert file_at(tmp_path).read() is None


def test_a_machine_is_busy_when_more_wants_to_run_than_can() -> None:
    assert not is_busy(lambda: (0.1, 100_000.0, 100_000.0))
    assert is_busy(lambda: (100_000.0, 0.1, 0.1))
