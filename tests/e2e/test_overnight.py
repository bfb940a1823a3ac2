"""`examples/overnight.sh` against a real node: script and node are killed in the middle, again and again."""

import io
import os
import signal
import subprocess
import zipfile
from pathlib import Path

import httpx

from testing.waiting import PATIENCE_S, wait_for
from tests.e2e.conftest import ServedNode, free_port, served

SCRIPT = Path(__file__).parents[2] / "examples" / "overnight.sh"
NUM_OTHERS = 101  # more than a page of the list


def overnight(folder: Path, port: int, **settings: str) -> "subprocess.Popen[str]":
    env = {
        "PATH": os.environ["PATH"],
        "BASE_URL": f"http://127.0.0.1:{port}",
        "TRAIN_PER_CLASS": "8",
        "TEST_PER_CLASS": "2",
        "STEPS": "10",
        "POLL_S": "1",
        **settings,
    }
    return subprocess.Popen(
        ["sh", str(SCRIPT)], env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def dataset_made(http: httpx.Client, name: str) -> dict:
    items = http.get("/datasets?limit=1").json()["items"]
    return next((item for item in items if item["name"] == name), {})


def wait_for_images(node: ServedNode, count: int) -> str:
    read = wait_for(
        lambda: dataset_made(node.http, "overnight"), lambda read: bool(read) and read["progress"]["done"] >= count
    )
    return str(read["id"])


def num_named(http: httpx.Client, name: str) -> int:
    count, query = 0, {"limit": "100"}
    while True:
        page = http.get("/datasets", params=query).json()
        count += sum(item["name"] == name for item in page["items"])
        if page["next_cursor"] is None:
            return count
        query["cursor"] = page["next_cursor"]


def add_others(http: httpx.Client) -> None:
    classes = [{"name": name, "prompts": [name]} for name in ("fox", "dog")]
    for index in range(NUM_OTHERS):
        body = {"name": f"other-{index}", "classes": classes, "train_per_class": 0, "test_per_class": 0}
        assert http.post("/datasets", json=body).is_success


def test_overnight_goes_on_with_the_same_dataset_although_it_and_its_node_are_killed(
    tmp_path: Path, sqlite_url: str
) -> None:
    data, port = tmp_path / "data", free_port()
    with served(data, sqlite_url, port=port, may_be_killed=True) as node:
        first = overnight(tmp_path, port)
        dataset_id = wait_for_images(node, 2)
        first.kill()
        first.communicate()
        second = overnight(tmp_path, port)
        assert wait_for_images(node, 6) == dataset_id
        for process in (node.child("api"), node.child("worker"), node.process.pid):
            os.kill(process, signal.SIGKILL)
    with served(data, sqlite_url, port=port) as node:
        told, _ = second.communicate(timeout=10 * PATIENCE_S)  # it looks once a second until all is made
        assert (second.returncode, f"dataset {dataset_id}" in told) == (0, True), told
        add_others(node.http)
        # Other settings give another key, as does a day: the name alone is left, beyond the list's first page.
        for settings in ({"STEPS": "11"}, {}):
            (tmp_path / "overnight.zip").unlink()
            again = overnight(tmp_path, port, **settings)
            told, _ = again.communicate(timeout=PATIENCE_S)
            assert (again.returncode, f"dataset {dataset_id}" in told) == (0, True), told
        assert num_named(node.http, "overnight") == 1
    with zipfile.ZipFile(io.BytesIO((tmp_path / "overnight.zip").read_bytes())) as archive:
        assert archive.testzip() is None
        assert sum(name.endswith(".png") for name in archive.namelist()) == 20


def test_overnight_makes_a_dataset_anew_that_was_deleted(shared_live: ServedNode, tmp_path: Path) -> None:
    http = shared_live.http
    settings = {"NAME": "deleted.one", "TRAIN_PER_CLASS": "1", "TEST_PER_CLASS": "1", "STEPS": "2"}
    for _ in range(2):
        script = overnight(tmp_path, int(http.base_url.port or 0), **settings)
        told, _ = script.communicate(timeout=5 * PATIENCE_S)
        assert script.returncode == 0, told
        made = dataset_made(http, "deleted.one")
        assert http.delete(f"/datasets/{made['id']}").status_code == 204
