"""A node for the examples, and how each kind of example is run.

The node is the real application with a real worker, in processes of their own; its models are fakes that draw foxes red
and dogs blue, so that a trained model is right about both.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.db.migrations import migrate
from app.jobs.migrations import migrate_job_engine
from testing.node_process import nodes
from testing.waiting import wait_for
from tests.e2e.conftest import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NODE_MODULES = ROOT / "tests" / "clients" / "node_modules"
# Shared by others, and no example by itself.
LIBRARIES = ("lib.sh", "foxhound.ts")
# Small enough for a test, large enough to be killed in the middle.
SETTINGS = {"TRAIN_PER_CLASS": "6", "TEST_PER_CLASS": "2", "STEPS": "4", "EPOCHS": "2", "POLL_S": "1", "AT_ONCE": "2"}
# Of a step, in seconds: a dataset takes some seconds, in which an example can be killed.
STEP_S = 0.02


def all_examples() -> list[str]:
    """Return the paths of all examples below `examples/`; a new file is found by its ending."""
    found = [path for suffix in ("sh", "py", "ts") for path in EXAMPLES.rglob(f"*.{suffix}")]
    paths = sorted(path.relative_to(EXAMPLES) for path in found if path.name not in LIBRARIES)
    return [str(path) for path in paths if not {"node_modules", "built"} & set(path.parts)]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs examples against a node.

    Attributes:
        http: A client of the node.
        built: Where compiled TypeScript lies.
        pictures: A folder of pictures for each of two classes.
    """

    http: httpx.Client
    built: Path
    pictures: Path

    def start(self, example: str, name: str, folder: Path) -> "subprocess.Popen[str]":
        """Start an example in a session of its own; what it makes is called `name`, its files go into `folder`."""
        env = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "FOXHOUND_URL": str(self.http.base_url),
            "PICTURES": str(self.pictures),
            "NAME": name,
            **SETTINGS,
        }
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [*self._command(example), *([name] if example == "fox_or_dog.sh" else [])]
        return subprocess.Popen(command, env=env, cwd=folder, start_new_session=True, **output)  # type: ignore[call-overload]

    def _command(self, example: str) -> list[str]:
        path = EXAMPLES / example
        if path.suffix == ".py":
            return [sys.executable, str(path)]
        if path.suffix == ".ts":
            return ["node", str(self.built / "examples" / Path(example).with_suffix(".js"))]
        return ["bash" if "bash" in path.read_text().partition("\n")[0] else "sh", str(path)]


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill an example and all that it has started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the TypeScript examples with the generated client, strictly, and return the folder."""
    folder = tmp_path_factory.mktemp("typescript")
    if not any(example.endswith(".ts") for example in all_examples()):
        return folder
    ignored = shutil.ignore_patterns("node_modules", "built", "dist")
    for part in ("examples/typescript", "clients/typescript"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    compiler = [str(NODE_MODULES / ".bin" / "tsc"), "-p", "examples/typescript", "--outDir", "built"]
    done = subprocess.run(compiler, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (folder / "built" / "package.json").write_text('{"type": "module"}')
    return folder / "built"


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each class with some different pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for label, colour in (("fox", (222, 120, 40)), ("dog", (40, 120, 222))):
        (folder / label).mkdir()
        for number in range(5):
            shade = tuple(value - 8 * number for value in colour)
            Image.new("RGB", (64 + number, 64), shade).save(folder / label / f"{label} {number}.png")
    return folder


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory, built: Path, pictures: Path) -> Iterator[Runner]:
    """A node with its worker, for all examples."""
    folder, port = tmp_path_factory.mktemp("examples"), free_port()
    url = f"sqlite:///{folder / 'foxhound.db'}"
    migrate(url)
    migrate_job_engine(url)
    with nodes(folder, folder / "data", url, step_s=STEP_S) as start, httpx.Client(timeout=120) as http:
        start("node", port=port)
        http.base_url = f"http://127.0.0.1:{port}"
        wait_for(lambda: _status(http), lambda status: status == 200)
        yield Runner(http, built, pictures)


def _status(http: httpx.Client) -> int:
    try:
        return http.get("/readyz").status_code
    except httpx.TransportError:
        return 0
