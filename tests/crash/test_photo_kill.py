"""The first request that needs `photo` converts its weights: once, however many ask, and whole after any kill."""

from pathlib import Path

import pytest

from app.modelpacks.photo import ensure_photo
from app.modelpacks.timm_models import read_timm_model
from testing.kills import Kill
from testing.processes import convert_photo
from tests.crash.house import exit_code, start, wait_for_death


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow("converts 17 MB of weights")
def test_threads_and_processes_at_once_convert_once(tmp_path: Path) -> None:
    processes = [start(convert_photo, tmp_path / "photo", 3, None) for _ in range(2)]
    assert sorted(exit_code(process) or 0 for process in processes) == [0, 1]
    assert names(tmp_path / "photo") == ["config.json", "model.safetensors"]


@pytest.mark.slow("converts 17 MB of weights")
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_killed_conversion_leaves_no_half_file_and_is_made_up_for(tmp_path: Path, file: str) -> None:
    folder = tmp_path / "photo"
    wait_for_death(start(convert_photo, folder, 1, Kill("rename", (f"{file}.", ".part"))))
    assert not (folder / file).exists()
    assert [name for name in names(folder) if name.startswith(file)] != []  # its part, which nobody reads
    ensure_photo(folder)
    assert names(folder) == ["config.json", "model.safetensors"]
    assert read_timm_model("photo", folder).num_classes == 1000
