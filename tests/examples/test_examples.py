"""Every file of `examples/` against a real node: twice in a row, and once after a kill in the middle.

An example takes its settings from the environment and prints how far it is: `3 of 8 images`, or `saved NAME`.
"""

import re
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.examples.conftest import Runner, all_examples, kill

pytestmark = pytest.mark.examples

LIMIT_S = 300
# A line that an example prints when it is in the middle of its work.
MIDDLE = re.compile(r"\b[1-9]\d* of [1-9]\d*\b|\bsaved\b|^train job |^1\.|^CLIP|^0 of 0 ", re.MULTILINE)


def run(runner: Runner, example: str, name: str, folder: Path) -> None:
    process = runner.start(example, name, folder)
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, output


def run_and_kill(runner: Runner, example: str, name: str, folder: Path) -> None:
    process = runner.start(example, name, folder)
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(MIDDLE, line):
            break
    else:
        pytest.fail(f"the example ended before it was in the middle:\n{seen}")
    kill(process)


def made(http: httpx.Client, name: str) -> dict[str, list[str]]:
    """Return what the node has under names that begin with this one, and all jobs that are not `generate`."""
    found: dict[str, list[str]] = {}
    for kind in ("datasets", "models"):
        items = http.get(f"/{kind}", params={"limit": "100"}).json()["items"]
        found[kind] = [item["id"] for item in items if item["name"].startswith(name)]
    found["jobs"] = [job["id"] for job in http.get("/jobs?limit=100").json()["items"]]
    return found


def assert_whole(folder: Path) -> None:
    assert not list(folder.rglob("*.part")), "a download is not finished"
    for path in folder.rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert any(entry.endswith(".png") for entry in archive.namelist())


@pytest.mark.parametrize("example", all_examples())
def test_an_example_can_be_run_twice_in_a_row(runner: Runner, tmp_path: Path, example: str) -> None:
    name = "twice-" + example.replace("/", "-").replace(".", "-").replace("_", "-")
    run(runner, example, name, tmp_path)
    once = made(runner.http, name)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zip")}
    assert_whole(tmp_path)

    run(runner, example, name, tmp_path)
    assert made(runner.http, name) == once, "the second run made something again"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.zip")} == files, "a download was not kept"


@pytest.mark.parametrize("example", all_examples())
def test_an_example_goes_on_after_a_kill(runner: Runner, tmp_path: Path, example: str) -> None:
    name = "killed-" + example.replace("/", "-").replace(".", "-").replace("_", "-")
    run_and_kill(runner, example, name, tmp_path)
    before = made(runner.http, name)

    run(runner, example, name, tmp_path)
    assert_whole(tmp_path)
    after = made(runner.http, name)
    assert set(before["datasets"]) <= set(after["datasets"])
    assert len(after["datasets"]) <= 1, "a dataset was made twice"
    assert len(after["models"]) <= 1, "a model was trained twice"
