import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.tiny import build_tiny_pack, write_manifest

CopyParts = Callable[..., Path]


@pytest.fixture(scope="session")
def built_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pack to read from."""
    return build_tiny_pack(tmp_path_factory.mktemp("packs") / "tiny")


@pytest.fixture
def copy_parts(built_pack: Path, tmp_path: Path) -> CopyParts:
    """Makes a pack of some parts of the tiny one, to damage. (All of it is 45 MB, a ResNet18 cannot be smaller.)"""

    def copy(*parts: str) -> Path:
        for part in parts:
            shutil.copytree(built_pack / part, tmp_path / "tiny" / part)
        write_manifest(tmp_path / "tiny")
        return tmp_path / "tiny"

    return copy
