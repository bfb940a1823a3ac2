"""Tests of `app.engine.kernels.host_cores`, with two threads that want one core."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from app.engine.kernels.host_cores import seconds_without_core


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not count it")
def test_threads_that_share_a_core_wait_for_it() -> None:
    core = min(os.sched_getaffinity(0))
    have_begun, waited = threading.Barrier(2), []

    def compute() -> None:
        os.sched_setaffinity(0, {core})  # of this thread alone
        have_begun.wait()
        before = seconds_without_core()
        for _ in range(8):
            hashlib.sha256(bytes(4_000_000)).digest()  # without Python's lock
        waited.append(seconds_without_core() - before)
        have_begun.wait()  # the figures of a thread end with it

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(waited) > 0.005
