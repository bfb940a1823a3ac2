"""What the parent makes of a child's end; the child's own work is in `tests/parity/test_exports.py`."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from app.exporting.child import export_onnx
from app.exporting.classifier import Classifier
from app.exporting.errors import ExportError, ExportStopped, ExportTimedOut, NotExportable, ParityFailed
from testing.waiting import PATIENCE_S, wait_until

Make = Callable[..., Classifier]


def child(code: str) -> list[str]:
    """A command whose last argument is the folder."""
    return [sys.executable, "-I", "-S", "-c", f"import sys, pathlib; folder = pathlib.Path(sys.argv[1]); {code}"]


def outcome(text: str) -> list[str]:
    return child(f"(folder / 'outcome.json').write_text('''{text}'''); (folder / 'model.onnx').write_text('graph')")


def test_the_childs_graph_and_figures_are_handed_on(classifier: Make, tmp_path: Path) -> None:
    figures = '{"num_pictures": 32, "max_difference": 0.1, "max_log_difference": 0.2, "num_other_classes": 0}'
    parity = export_onnx(classifier(), tmp_path / "a.onnx", command=outcome(figures))
    assert (parity.num_pictures, parity.max_difference) == (32, 0.1)
    assert (tmp_path / "a.onnx").read_text() == "graph"


def test_a_graph_without_parity_is_not_offered(classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(ParityFailed) as failed:
        export_onnx(classifier(), tmp_path / "a.onnx", command=outcome('{"parity_failed": [0.25, 3.0, 4, 32]}'))
    assert (failed.value.max_difference, failed.value.num_other_classes) == (0.25, 4)
    assert not (tmp_path / "a.onnx").exists()


def test_a_network_that_cannot_be_traced_has_its_reason(classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(NotExportable, match="because"):
        export_onnx(classifier(), tmp_path / "a.onnx", command=outcome('{"not_exportable": "because"}'))


def test_a_child_that_takes_too_long_is_ended(classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(ExportTimedOut):
        export_onnx(classifier(), tmp_path / "a.onnx", timeout_s=0.2, command=child("import time; time.sleep(600)"))


def test_a_child_that_crashes_is_an_export_error(classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="See the log"):
        export_onnx(classifier(), tmp_path / "a.onnx", command=child("sys.exit(3)"))


def test_too_few_pictures_are_refused(classifier: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        export_onnx(classifier(), tmp_path / "a.onnx", pixels=[np.zeros((31, 3, 32, 32), np.float32)])


def test_a_child_is_ended_when_its_caller_stops(classifier: Make, tmp_path: Path) -> None:
    stopping = threading.Event()
    started = tmp_path / "started"
    code = f"import time; pathlib.Path({str(started)!r}).touch(); time.sleep(600)"
    with ThreadPoolExecutor(1) as threads:
        exported = threads.submit(
            export_onnx, classifier(), tmp_path / "a.onnx", command=child(code), stopping=stopping
        )
        wait_until(started.exists)
        stopping.set()
        with pytest.raises(ExportStopped):
            exported.result(PATIENCE_S)
    assert not (tmp_path / "a.onnx").exists()


def test_a_child_ends_when_its_parent_was_killed(tmp_path: Path) -> None:
    code = f"""
import subprocess, sys, threading
from app.exporting.child import _run_child
child = "import pathlib, time, os; from app.exporting.child import end_with_parent; end_with_parent(); " \\
    "pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid())); time.sleep(600)"
_run_child([sys.executable, "-c", child], 600, threading.Event())
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as parent:
        wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        parent.kill()
        assert parent.stderr is not None
        parent.stderr.read()  # the child has the other end of a pipe of its own
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
