"""Kept exports: found while they are sound and of this edition, bounded in bytes."""

import os
from pathlib import Path

import pytest

from app.storage.exports import ExportFiles, exported_models, forget_exports
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def keep(files: ExportFiles, model_id: str, data: bytes, ending: str = "zip") -> Path:
    with files.staged() as part:
        part.write_bytes(data)
        return files.keep(part, model_id, ending).path


def test_a_file_is_found_by_model_ending_and_edition(folder: DataFolder) -> None:
    files = ExportFiles(folder, FileChecks(folder), "0.3")
    path = keep(files, "a", b"1")
    found = files.find("a", "zip")
    assert found is not None
    assert found.path == path
    assert files.find("a", "onnx") is None
    assert files.find("b", "zip") is None
    newer = ExportFiles(folder, FileChecks(folder), "0.4")
    assert newer.find("a", "zip") is None
    keep(newer, "a", b"2")
    assert not path.exists()
    assert newer.find("a", "zip") is not None


def test_the_oldest_files_go_beyond_the_bound_and_the_newest_stays(folder: DataFolder) -> None:
    files = ExportFiles(folder, FileChecks(folder), "0.3", max_bytes=25)
    first, second = keep(files, "a", b"1" * 10), keep(files, "b", b"2" * 10)
    os.utime(first, (1, 1))
    os.utime(second, (2, 2))
    third = keep(files, "c", b"3" * 10)
    assert [path.exists() for path in (first, second, third)] == [False, True, True]
    large = keep(files, "d", b"4" * 100)
    assert large.exists()
    assert not second.exists()


def test_nothing_is_left_of_a_file_that_was_not_kept(folder: DataFolder) -> None:
    files = ExportFiles(folder, FileChecks(folder), "0.3")
    with files.staged() as part:
        part.write_bytes(b"half")
    assert list(folder.temporaries.iterdir()) == []
    assert exported_models(folder) == []


def test_models_are_forgotten_one_by_one(folder: DataFolder) -> None:
    files = ExportFiles(folder, FileChecks(folder), "0.3")
    keep(files, "a", b"1")
    keep(files, "b", b"2")
    forget_exports(folder, "a")
    forget_exports(folder, "missing")
    assert exported_models(folder) == ["b"]


@pytest.mark.parametrize("model_id", ["..", "../models", ""])
def test_no_id_leads_out_of_the_folder(folder: DataFolder, model_id: str) -> None:
    with pytest.raises(ValueError, match="leaves"):
        ExportFiles(folder, FileChecks(folder), "0.3").find(model_id, "zip")
