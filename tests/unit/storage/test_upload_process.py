"""Large uploads are encoded in processes of their own: with the same result, whatever becomes of the process."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import AppError, Invalid, PayloadTooLarge, Unavailable
from app.storage.image_formats import ReencodedImage, reencode_image
from app.storage.upload_process import COMMAND, UploadProcesses
from testing.waiting import PATIENCE_S, wait_until
from tests.unit.storage.test_image_formats import photo, saved

LIMITS: dict[str, Any] = {"max_bytes": 20_000_000, "max_pixels": 40_000_000}
LARGE = saved(photo(1_200, 1_000), "jpeg")


@pytest.fixture
def processes() -> Iterator[UploadProcesses]:
    processes = UploadProcesses(1)
    yield processes
    processes.close()


def child(script: str) -> UploadProcesses:
    """Processes that run a script instead."""
    return UploadProcesses(1, command=[sys.executable, "-c", script])


def refusal_of(processes: UploadProcesses, data: bytes = LARGE) -> AppError:
    with pytest.raises(AppError) as caught:
        processes.reencode(data, **LIMITS)
    return caught.value


@pytest.mark.parametrize("image_format", ["jpeg", "png", "webp"])
def test_the_result_is_the_same_as_without_a_process(processes: UploadProcesses, image_format: str) -> None:
    data = saved(photo(1_200, 1_000), image_format)

    assert processes.reencode(data, **LIMITS) == reencode_image(data, **LIMITS)


def test_a_refusal_is_the_same_as_without_a_process_and_the_next_image_is_taken(processes: UploadProcesses) -> None:
    for data, max_pixels in ((LARGE[:-1_000], 40_000_000), (LARGE, 1_000)):
        with pytest.raises(AppError) as expected:
            reencode_image(data, max_bytes=20_000_000, max_pixels=max_pixels)
        with pytest.raises(type(expected.value)) as caught:
            processes.reencode(data, max_bytes=20_000_000, max_pixels=max_pixels)
        assert (caught.value.code, caught.value.detail) == (expected.value.code, expected.value.detail)

    assert processes.reencode(LARGE, **LIMITS).width == 1_200


def test_small_images_and_files_above_the_limit_need_no_process() -> None:
    processes = child("raise SystemExit(1)")

    assert processes.reencode(saved(photo(), "png"), **LIMITS).width == 48
    with pytest.raises(PayloadTooLarge):
        processes.reencode(LARGE, max_bytes=1_000, max_pixels=40_000_000)


def test_an_image_that_uses_up_its_processor_time_is_refused() -> None:
    processes = child("import signal\nsignal.setitimer(signal.ITIMER_PROF, 0.05)\nwhile True: pass")

    error = refusal_of(processes)

    assert isinstance(error, Invalid)
    assert error.code == "image_too_slow"


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGSEGV, "corrupt_image"), (signal.SIGABRT, "corrupt_image"), (signal.SIGKILL, "unavailable")],
)
def test_an_image_that_crashes_its_process_is_refused_and_one_that_was_ended_may_be_sent_again(
    number: signal.Signals, code: str
) -> None:
    script = f"import os, sys\nsys.stdin.buffer.read(8)\nos.kill(os.getpid(), {int(number)})"

    assert refusal_of(child(script)).code == code


def test_a_process_that_has_ended_is_replaced(tmp_path: Path) -> None:
    """The first one ends, with its call or while it is idle; the second is real."""
    mark = tmp_path / "mark"
    script = f"import os, sys\nif os.path.exists({str(mark)!r}): os.execv(sys.executable, {list(COMMAND)!r})\n"
    script += f"open({str(mark)!r}, 'x')"
    processes = child(script)

    assert isinstance(refusal_of(processes), Unavailable)
    assert processes.reencode(LARGE, **LIMITS).height == 1_000
    processes.close()
    assert processes.reencode(LARGE, **LIMITS).height == 1_000
    processes.close()


def test_a_program_that_is_not_there_is_unavailable() -> None:
    assert isinstance(refusal_of(UploadProcesses(1, command=["/nowhere"])), Unavailable)


def test_more_images_than_processes_wait_for_their_turn(processes: UploadProcesses) -> None:
    made: list[ReencodedImage] = []
    threads = [threading.Thread(target=lambda: made.append(processes.reencode(LARGE, **LIMITS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert len(made) == 4
    assert len({one.sha256 for one in made}) == 1


def test_a_file_that_no_pipe_holds_at_once_is_taken(processes: UploadProcesses) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2_000, 2_000, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), "png")

    made = processes.reencode(data, **LIMITS)

    assert made.uploaded_bytes == len(data) > 10_000_000
    assert made.data == reencode_image(data, **LIMITS).data


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_ends_when_its_parent_has_ended(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from app.storage.upload_process import UploadProcesses\n"
        "from tests.unit.storage.test_upload_process import LARGE, LIMITS\n"
        "processes = UploadProcesses(1)\n"
        "processes.reencode(LARGE, **LIMITS)\n"
        "print(open(f'/proc/self/task/{os.getpid()}/children').read(), flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    told = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False).stdout

    wait_until(lambda: not Path(f"/proc/{int(told)}").exists())
