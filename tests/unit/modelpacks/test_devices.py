import os
import subprocess
import sys

import pytest
import torch

from app.modelpacks.devices import resolve_deterministic, resolve_device, resolve_dtype, resolve_num_threads
from app.modelpacks.pack import PackError

HAS_CUDA = torch.cuda.is_available()


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if HAS_CUDA else "cpu")


def test_the_cpu_can_be_asked_for() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99"] if HAS_CUDA else ["cuda", "cuda:0", "cuda:99"])
def test_a_gpu_that_is_not_there_is_an_error_and_no_silent_cpu(name: str) -> None:
    with pytest.raises(PackError, match="does not have"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "meta", "cuda:x", "CPU "])
def test_an_unknown_device_is_rejected(name: str) -> None:
    with pytest.raises(PackError, match="no such device"):
        resolve_device(name)


def test_auto_means_half_precision_on_a_gpu_alone() -> None:
    assert resolve_dtype("auto", torch.device("cuda")) == torch.float16
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32


def test_a_dtype_can_be_asked_for() -> None:
    assert resolve_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    with pytest.raises(PackError, match="no such dtype"):
        resolve_dtype("int8", torch.device("cpu"))  # type: ignore[arg-type]


def test_results_are_deterministic_on_the_cpu_alone_unless_set() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert resolve_deterministic(None, cpu)
    assert not resolve_deterministic(None, gpu)
    assert resolve_deterministic(True, gpu)
    assert not resolve_deterministic(False, cpu)


@pytest.mark.parametrize(("said", "expected"), [("3", 3), ("5,2", 5), (" 4 ", 4)])
def test_the_threads_are_those_that_openmp_was_given(monkeypatch: pytest.MonkeyPatch, said: str, expected: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert resolve_num_threads(None) == expected
    assert resolve_num_threads(7) == 7


def test_without_a_number_the_threads_are_the_cores_that_the_process_may_use() -> None:
    """A container that may use one core of many must not get a thread for each of them."""
    core = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, {{{core}}}); os.environ['OMP_NUM_THREADS'] = 'none'; "
        "from app.modelpacks.devices import resolve_num_threads; print(resolve_num_threads(None))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) == 1
