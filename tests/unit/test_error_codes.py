"""Each error code is sent with the statuses that its enum member declares, as far as the source shows."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.jobs.signals  # noqa: F401 - defines errors
from app.error_codes import ErrorCode
from app.errors import AppError, FileLost, Invalid

ROOT = Path(__file__).parents[2]
CODES = {str(code) for code in ErrorCode}
# Entries of a list in a response; their codes are those of a request that has this fault alone.
FAULTS = {"FieldError", "RefusedFile", "PydanticCustomError", "_one_fault"}
# The middleware gives them to any status that has no code of its own.
OF_ANY_STATUS = {ErrorCode.INTERNAL_ERROR, ErrorCode.REQUEST_REFUSED}

Sighting = tuple[str, int]


def errors_below(base: type[AppError]) -> dict[str, type[AppError]]:
    found = {base.__name__: base}
    for error in base.__subclasses__():
        found |= errors_below(error)
    return found


ERRORS = errors_below(AppError)


def codes_in(node: ast.AST, *, with_texts: bool) -> set[str]:
    """Return the codes that an expression names, as members of the enum or, `with_texts`, as plain strings."""
    members = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)} & set(ErrorCode.__members__)
    texts = (
        {str(part.value) for part in ast.walk(node) if isinstance(part, ast.Constant)} & CODES if with_texts else set()
    )
    return {str(ErrorCode[name]) for name in members} | texts


def status_of(call: ast.Call) -> int | None:
    """Return the status of the error that a call makes; None: it makes none."""
    name = ast.unparse(call.func).removesuffix(".field")
    if name in ERRORS:
        return ERRORS[name].status
    return Invalid.status if name in FAULTS else None


def sightings_in(tree: ast.Module) -> Iterator[Sighting]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (status := status_of(node)) is not None:
            values = [*node.args, *(word.value for word in node.keywords)]
            direct = {code for value in values if not _has_call(value) for code in codes_in(value, with_texts=True)}
            yield from ((code, status) for code in direct)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _of_variables(node)
        elif isinstance(node, ast.Dict):
            yield from _of_table(node)


def _has_call(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) for part in ast.walk(node))


def _of_variables(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Sighting]:
    """Yield the codes that a function assigns to `code` before it makes an error with `code=code`."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    statuses = {
        status
        for call in calls
        if any(word.arg == "code" and ast.unparse(word.value) == "code" for word in call.keywords)
        and (status := status_of(call)) is not None
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and "code" in ast.unparse(node.targets[0]):
            yield from ((code, status) for code in codes_in(node.value, with_texts=False) for status in statuses)


def _of_table(table: ast.Dict) -> Iterator[Sighting]:
    """Yield the codes of tables: of statuses, and of faults of files."""
    for key, value in zip(table.keys, table.values, strict=True):
        if not isinstance(key, ast.Constant):
            continue
        first = value.elts[0] if isinstance(value, ast.Tuple) else value
        if type(key.value) is int:
            yield from ((code, key.value) for code in codes_in(first, with_texts=True))
        elif key.value in ("missing", "damaged"):
            yield from ((code, FileLost.status) for code in codes_in(first, with_texts=True) - {"missing"})


@pytest.fixture(scope="module")
def sent() -> dict[str, set[int]]:
    """The statuses with which the source sends each code."""
    found = defaultdict(set)
    for error in ERRORS.values():
        found[str(error.default_code)].add(error.status)
    for path in (ROOT / "app").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for code, status in sightings_in(tree):
            found[code].add(status)
        if path.name == "validation_messages.py":  # what pydantic finds in a request
            for code in codes_in(tree, with_texts=True):
                found[code].add(Invalid.status)
    return found


@pytest.mark.parametrize("code", [code for code in ErrorCode if code not in OF_ANY_STATUS])
def test_a_code_is_sent_with_the_statuses_that_it_declares(code: ErrorCode, sent: dict[str, set[int]]) -> None:
    assert {int(status) for status in code.statuses.split(", ")} == sent[code]
