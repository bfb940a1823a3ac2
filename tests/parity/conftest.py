from pathlib import Path

import pytest
import torch

from app.modelpacks.pack import ModelPack, read_pack
from testing.tiny import build_tiny_pack

CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models as tiny as these lose more to the hand-over between threads than they gain."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    folder: Path = tmp_path_factory.mktemp("packs") / "tiny"
    return read_pack(build_tiny_pack(folder))
