"""A process that fine-tunes is killed by SIGKILL; another one continues and ends with the same bytes."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from app.finetuning.checkpoints import PLAN
from testing.fine_tuning import MODEL, carry_out, make_plan


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the child: the bytes are promised for one number of threads
    yield
    torch.set_num_threads(num_threads)


@pytest.mark.slow("starts a process that imports torch")
@pytest.mark.parametrize(
    "said",
    [
        {"step": 3},  # of 6, in the second epoch
        {"words": ["last.safetensors"], "nth": 2},  # the second epoch's weights lie there, its checkpoint does not
        {"words": ["kept-2.safetensors"], "nth": 1},
    ],
    ids=["within an epoch", "before the checkpoint", "before the weights"],
)
def test_a_killed_fine_tuning_continues_to_the_same_bytes(tmp_path: Path, said: dict[str, Any]) -> None:
    plan = make_plan(tmp_path / "in", mode="all", optimizer="adamw", lr=0.002, ema_decay=0.9, seed=11)
    unbroken = carry_out(plan, tmp_path / "unbroken")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / PLAN).write_bytes(plan.to_bytes())

    command = [sys.executable, "-m", "testing.fine_tuning", str(broken), json.dumps(said)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -signal.SIGKILL
    assert (broken / "last.safetensors").exists()
    assert not (broken / MODEL).exists()

    resumed = carry_out(plan, broken)
    assert resumed.file.sha256 == unbroken.file.sha256
    assert (broken / MODEL).read_bytes() == (tmp_path / "unbroken" / MODEL).read_bytes()
    assert [path.name for path in broken.glob("kept-*")] == ["kept-3.safetensors"]
