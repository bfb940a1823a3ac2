"""Clients that three generators make of docs/openapi.json: compiled strictly, and run against a node.

`make test-clients` installs the generators first. The programs are the `walk_*` files beside this one: each generates
images in JSON and as bytes, follows jobs by their events, uploads files, trains and classifies.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.conftest import ServedNode, served

pytestmark = pytest.mark.clients

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
CONTRACT = ROOT / "docs" / "openapi.json"
COMMITTED = ROOT / "clients" / "typescript" / "src"
NODE_MODULES = HERE / "node_modules"
PYTHON_TOOLS = ROOT / "build" / "clients" / "bin"
LIMIT_S = 600

# What every program tells of the node, whatever language it is in.
TOLD = {
    "generated": "png",
    "job": "succeeded",
    "scored": ["fox", "dog", "car"],
    "uploaded": 2,
    "classes": ["fox", "dog"],
    "predictions": 2,
    "refused": "not_found",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNode]:
    """A node with the demo pack and its worker."""
    folder = tmp_path_factory.mktemp("clients")
    with served(folder / "data", f"sqlite:///{folder / 'foxhound.db'}") as node:
        yield node


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two different image files."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [folder / "orange fox.png", folder / "grün.png"]
    for path, colour in zip(paths, ((222, 120, 40), (40, 160, 60)), strict=True):
        Image.new("RGB", (96, 64), colour).save(path)
    return paths


def run(command: Sequence[str | Path], cwd: Path, **environment: str) -> str:
    """Run a tool, and return what it printed."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, f"{done.stdout[-4_000:]}\n{done.stderr[-4_000:]}"
    return done.stdout + done.stderr


def tool(name: str) -> Path:
    return NODE_MODULES / ".bin" / name


def typescript(folder: Path, program: str) -> Path:
    """Compile `src` of a folder with a program, and return the JavaScript file."""
    shutil.copy(HERE / "tsconfig.json", folder)
    shutil.copy(HERE / f"{program}.ts", folder / "src")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    run([tool("tsc"), "-p", "."], folder)
    return folder / "built" / f"{program}.js"


def tell(output: str) -> dict:
    told: dict = json.loads(output.strip().splitlines()[-1])
    return told


def files_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.ts"))}


def test_the_committed_client_is_what_hey_api_generates(tmp_path: Path) -> None:
    said = run(
        [tool("openapi-ts"), "-f", "openapi-ts.config.mjs"],
        HERE,
        FOXHOUND_OPENAPI=str(CONTRACT),
        FOXHOUND_CLIENT=str(tmp_path / "src"),
    )
    assert "warn" not in said.lower()
    assert files_in(tmp_path / "src") == files_in(COMMITTED), "run `make clients`"
    types = (tmp_path / "src" / "types.gen.ts").read_text()
    assert not untyped(types, r"\b(unknown|any)\b")


def test_a_client_of_hey_api_does_everything(tmp_path: Path, live: ServedNode, pictures: list[Path]) -> None:
    shutil.copytree(COMMITTED, tmp_path / "src" / "client")
    program = typescript(tmp_path, "walk_hey_api")
    told = tell(run(["node", program, str(live.http.base_url), *pictures], tmp_path))
    assert told == {
        **TOLD,
        "bytes": "WEBP",
        "events": ["progress", "generation"],
        "spec": "a watercolor painting of a red fox",
        "has_result": True,
        "scored_files": 2,
        "planned": 12,
        "dataset": 12,
        "solver": "sgd",
    }


def test_openapi_fetch_does_everything(tmp_path: Path, live: ServedNode, pictures: list[Path]) -> None:
    (tmp_path / "src").mkdir()
    schema = tmp_path / "src" / "schema.ts"
    said = run(["node", "openapi-typescript.mjs", CONTRACT, schema], HERE)
    assert "warn" not in said.lower()
    # Further headers of a response are the generator's own addition to each of them.
    assert not untyped(schema.read_text().replace("[name: string]: unknown;", ""), r"\b(unknown|any)\b")
    program = typescript(tmp_path, "walk_openapi_fetch")
    told = tell(run(["node", program, str(live.http.base_url), *pictures], tmp_path))
    assert told == {**TOLD, "bytes": "ffd8ff", "events": ["progress", "generation"], "dataset": 12}


def test_openapi_python_client_does_everything(tmp_path: Path, live: ServedNode, pictures: list[Path]) -> None:
    package = tmp_path / "foxhound_generated"
    generator = PYTHON_TOOLS / "openapi-python-client"
    path = f"{PYTHON_TOOLS}{os.pathsep}{os.environ['PATH']}"
    command: list[str | Path] = [generator, "generate", "--path", CONTRACT, "--output-path", package, "--meta", "none"]
    said = run(command, tmp_path, PATH=path)
    assert "warning" not in said.lower(), said
    assert not [found for file in package.rglob("models/*.py") for found in untyped_python(file.read_text())]
    program = shutil.copy(HERE / "walk_python.py", tmp_path)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(PYTHON_TOOLS / "python")]
    # The generator's own `client.py` passes `*args: object` to httpx; what follows from our file is strict.
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-foxhound_generated.client]\nignore_errors = true\n")
    run([*mypy, "walk_python.py", "foxhound_generated"], tmp_path)
    told = tell(run([PYTHON_TOOLS / "python", program, str(live.http.base_url), *pictures], tmp_path))
    ended = {"dataset": "succeeded", "trained": "succeeded"}
    spec = {"spec": "a red fox", "has_result": True, "planned": 12}
    assert told == {**TOLD, **ended, **spec, "bytes": "ffd8ff"}


def untyped(code: str, pattern: str) -> list[str]:
    """Return the lines of TypeScript types with a word, without comments and texts."""
    code = re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL)
    code = re.sub(r"//[^\n]*|'[^'\n]*'|\"[^\"\n]*\"", "", code)
    return [line for line in code.splitlines() if re.search(pattern, line)]


def untyped_python(code: str) -> list[str]:
    """Return the attributes of generated models that are `Any`; dicts on the way to and from JSON are not counted."""
    return [line for line in code.splitlines() if re.match(r"    \w+: .*\bAny\b", line)]
