"""Memory that a forward frees stays with the process, and collections leave alone what was loaded."""

import platform
import subprocess
import sys

import pytest

# Forty megabytes: more than glibc would ever take from its heap by itself.
FAULTS = """
import resource
from app.engine.kernels.host_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * (40 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
assert keep_freed_memory()
faults()  # grows the heap, once
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_freed_memory_is_reused_without_page_faults() -> None:
    ended = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, after = map(int, ended.stdout.split())
    assert before > 40  # a fault a page, or two megabytes with huge pages
    assert after < before / 10


COLLECTED = """
import gc
from app.engine.kernels.host_memory import exempt_from_collection

loaded = [[] for _ in range(10_000)]
exempt_from_collection()
print(any(one is loaded for one in gc.get_objects()), gc.get_freeze_count() > len(loaded))
cycle = []
cycle.append(cycle)
del cycle
print(gc.collect() >= 1)
"""


def test_what_was_loaded_is_no_part_of_a_collection_and_later_garbage_is() -> None:
    ended = subprocess.run([sys.executable, "-c", COLLECTED], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "True", "True"]
