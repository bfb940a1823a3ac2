"""A tiny plan on one of torch's threads: on busy cores two of them wait for each other longer than they compute."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from app.finetuning.plan import FineTunePlan
from app.finetuning.runner import FineTuneRunner
from testing.fine_tuning import CPU, decode, make_plan


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def runner() -> Iterator[FineTuneRunner]:
    runner = FineTuneRunner(device=CPU, decode=decode)
    yield runner
    runner.close()


@pytest.fixture
def plan(tmp_path: Path) -> FineTunePlan:
    return make_plan(tmp_path)
