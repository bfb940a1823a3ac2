"""What the structure promises, read from the code itself."""

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
MODULES = sorted(APP.rglob("*.py"))

MAX_ENTRIES = 14  # of a folder of services, engine or api: more is no longer read at a glance
# Larger folders, with their number of entries today; it may only fall.
LARGER = {"app/services/datasets": 15}

# Routes without an `await` that stay off the threads: their answers are constants, wanted even when threads are busy,
# or they use what belongs to the event loop.
CONSTANT_ANSWERS = ("get_liveness", "backbone", "describe_service", "list_error_codes", "get_error_code")
OF_THE_LOOP = ("get_progress", "interrupt_drawing", "skip_drawing")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in MODULES:
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def test_every_async_route_awaits_something() -> None:
    """A route that never awaits belongs into a thread: there it cannot hold up the event loop."""
    idle = [
        f"{path}:{node.lineno}"
        for path, tree in trees()
        if path.parts[1] == "api"
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
        and node.decorator_list
        and "exception_handler" not in ast.unparse(node.decorator_list[0])
        and not any(isinstance(inner, ast.Await | ast.AsyncFor | ast.AsyncWith) for inner in ast.walk(node))
        and node.name not in CONSTANT_ANSWERS + OF_THE_LOOP
    ]
    assert idle == []


@pytest.mark.parametrize(
    "forbidden",
    [
        "BaseHTTPMiddleware",  # hides from routes that a client has left
        "pickle.load",
        " eval(",
        "shell=True",
        "yaml.load",
        "trust_remote_code=True",
    ],
)
def test_no_module_uses(forbidden: str) -> None:
    users = [str(path) for path, tree in trees() if forbidden in ast.unparse(_without_texts(tree))]
    assert users == []


def test_torch_load_converts_fetched_files_alone_and_only_with_weights_only() -> None:
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert words.get("weights_only") == "True", path
                assert path.as_posix() == "app/modelpacks/convert.py" or "build" in path.parts, path


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path, tree in trees() if not ast.get_docstring(tree)] == []


def test_functions_and_files_stay_short() -> None:
    long_files = [str(path) for path in MODULES if len(path.read_text(encoding="utf-8").splitlines()) > 350]
    long_functions = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _body_lines(node) > 45
    ]
    assert (long_files, long_functions) == ([], [])


def test_folders_stay_small() -> None:
    """Modules and packages directly in a folder, without its `__init__.py`."""
    entries = Counter(
        str(path.parent.relative_to(ROOT))
        for layer in ("services", "engine", "api")
        for path in {*(APP / layer).rglob("*.py"), *(init.parent for init in (APP / layer).rglob("*/__init__.py"))}
        if path.name != "__init__.py"
    )
    assert {name: count for name, count in entries.items() if count > LARGER.get(name, MAX_ENTRIES)} == {}


def test_every_package_of_the_application_is_in_the_contract_of_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layers] = [contract for contract in settings["contracts"] if contract.get("containers") == ["app"]]
    listed = {name.strip() for layer in layers["layers"] for name in layer.split("|")}
    there = {path.stem for path in APP.glob("*.py")} | {path.parent.name for path in APP.glob("*/__init__.py")}
    assert (listed, layers["exhaustive"]) == (there - {"__init__"}, True)


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - first[0].lineno + 1 if first else 0


def test_only_the_settings_read_the_environment() -> None:
    readers = {path.as_posix() for path, tree in trees() if "os.environ" in ast.unparse(_without_texts(tree))}
    # Three only write: the supervisor hands its children the number of a file descriptor this way, and cuBLAS and
    # OpenMP take a setting of each from there.
    writers = {"app/node/supervisor.py", "app/modelpacks/devices.py", "app/cli/main.py"}
    assert {reader for reader in readers if "demo_pack/" not in reader} <= writers


def _without_texts(tree: ast.Module) -> ast.Module:
    """Return the tree without its docstrings and other bare texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return tree
