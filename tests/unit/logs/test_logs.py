"""What a line of the log contains, and what it never does."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from pydantic import BaseModel, ValidationError

from app.errors import InferenceFailed, Unavailable
from app.logs.context import carried, handling, id_headers, job_id, note_request, request_id
from app.logs.errors import WITH_TEXT, error_lines, without_texts
from app.logs.formats import FIELDS
from app.logs.setup import LogFormat, log_handler

CANARY = "a fox of Mrs. Secretary"

Logged = Callable[[], list[str]]


@pytest.fixture(params=["text", "json"])
def log_format(request: pytest.FixtureRequest) -> LogFormat:
    return request.param


@pytest.fixture
def logged(log_format: LogFormat) -> Iterator[Logged]:
    """The lines that any logger has written in a format so far."""
    stream = io.StringIO()
    handler = log_handler(log_format, "test", stream)
    root = logging.getLogger()
    root.addHandler(handler)
    before, root.level = root.level, logging.DEBUG
    yield lambda: stream.getvalue().splitlines()
    root.removeHandler(handler)
    root.level = before


def raised(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError


class Strict(BaseModel):
    count: int


QUOTING: list[Callable[[], object]] = [
    lambda: Strict(count=CANARY),
    lambda: dict[str, int]()[CANARY],
    lambda: int(CANARY),
    lambda: open(f"/{CANARY}"),  # noqa: SIM115
    lambda: json.loads(f'{{"{CANARY}": }}'),
    lambda: CANARY.encode().decode("utf-16"),
    lambda: getattr(3, CANARY),
    lambda: (_ for _ in ()).throw(InferenceFailed(CANARY)),
    lambda: (_ for _ in ()).throw(ExceptionGroup(CANARY, [ValueError(CANARY)])),
    lambda: (_ for _ in ()).throw(psycopg.OperationalError("the server has gone")),
]


@pytest.mark.parametrize("call", QUOTING)
def test_an_exception_is_logged_with_its_place_and_without_its_words(
    logged: Logged, call: Callable[[], object]
) -> None:
    def fail() -> None:
        try:
            call()
        except Exception as error:
            raise Unavailable(CANARY) from error

    logging.getLogger("app.test").error("It failed.", exc_info=raised(fail))
    text = "\n".join(logged())
    assert CANARY not in text
    assert "test_logs.py" in text
    assert type(raised(call)).__name__ in text
    assert "Unavailable: unavailable" in text


def test_an_error_of_the_start_is_logged_with_its_text(logged: Logged) -> None:
    error = raised(lambda: int("the file is missing"))
    logging.getLogger("app.test").error("It failed.", exc_info=error, extra=WITH_TEXT)
    assert "the file is missing" in "\n".join(logged())


def test_one_record_is_one_line_whatever_it_contains(log_format: LogFormat) -> None:
    forged = 'x\n2026-01-01 00:00:00,000 INFO foxhound: forged\r\n{"level": "info"}\x1b[2J\u2028\x85\ud800'
    # Not through the root logger: pytest sends what it captures there between processes, in UTF-8.
    record = logging.LogRecord("app.test", logging.INFO, __file__, 1, "It is %s.", (forged,), None)
    stream = io.StringIO()
    log_handler(log_format, "test", stream).emit(record)
    [line] = stream.getvalue().splitlines()
    assert line.isprintable()
    if log_format == "json":
        assert json.loads(line)["message"] == f"It is {forged}."


def test_lines_of_an_exception_are_no_records_of_the_text_format() -> None:
    stream = io.StringIO()
    record = logging.LogRecord("app.test", logging.ERROR, __file__, 1, "It failed.", (), None)
    record.exc_info = (OSError, raised(lambda: open("/nowhere")), None)  # noqa: SIM115
    log_handler("text", "test", stream).emit(record)
    first, *others = stream.getvalue().splitlines()
    assert first.endswith("ERROR app.test: It failed.")
    assert others
    assert all(line.startswith("    ") for line in others)


def test_messages_of_other_libraries_are_withheld(logged: Logged) -> None:
    logging.getLogger("dbos").warning(f"Error serializing object: {CANARY}")
    logging.getLogger("asyncio").error("Task failed with %s", CANARY)
    logging.getLogger("uvicorn.error").warning("Application startup complete.")
    text = "\n".join(logged())
    assert CANARY not in text
    assert "message withheld, test_logs.py" in text
    assert "Task failed with %s [values withheld" in text
    assert "Application startup complete." in text


def test_a_message_whose_arguments_do_not_fit_is_logged_without_them(log_format: LogFormat) -> None:
    stream = io.StringIO()
    record = logging.LogRecord("app.test", logging.INFO, __file__, 1, "%d images", (CANARY,), None)
    log_handler(log_format, "test", stream).emit(record)
    assert CANARY not in stream.getvalue()
    assert "%d images" in stream.getvalue()


def test_every_line_has_the_ids_and_a_json_line_its_members(log_format: LogFormat, logged: Logged) -> None:
    with handling(job="the-job"):
        note_request("the-request")
        logging.getLogger("app.test").info("It is done.", extra={FIELDS: {"ms": 1.5}})
    logging.getLogger("app.test").info("It is over.")
    first, second = logged()
    assert ("the-request" in second, "the-job" in second) == (False, False)
    if log_format == "text":
        assert first.endswith("It is done. [request_id=the-request job_id=the-job]")
        return
    line = json.loads(first)
    assert (line["request_id"], line["job_id"], line["ms"]) == ("the-request", "the-job", 1.5)
    assert (line["level"], line["logger"], line["message"]) == ("info", "app.test", "It is done.")
    assert (line["process"], line["time"][-1]) == ("test", "Z")


def test_threads_of_a_pool_work_for_the_same_request() -> None:
    barrier = threading.Barrier(2)

    def ids(number: int) -> tuple[int, str, str]:
        barrier.wait(10)
        return number, request_id(), job_id()

    with handling(request="r", job="j"), ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(carried(ids), [1, 2]))
        headers = id_headers()
    assert seen == [(1, "r", "j"), (2, "r", "j")]
    assert headers == {"X-Request-Id": "r", "X-Foxhound-Job": "j"}
    assert (request_id(), id_headers()) == ("", {})


def test_what_a_child_printed_is_reduced_to_places_and_types() -> None:
    code = f"import json\ndef fail():\n    raise ValueError({CANARY!r})\nfail()"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert CANARY in child.stderr
    reduced = without_texts(child.stderr)
    assert CANARY not in reduced
    assert reduced.startswith('ValueError < File "<string>", line 3, in fail')


def test_a_chain_without_an_end_is_cut() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert len(error_lines(first)) < 10


PROCESS = """
import logging, sys, threading, warnings
logging.getLogger("library").addHandler(logging.StreamHandler())
from app.logs.setup import configure_logging
configure_logging("info", {log_format!r}, "test")
warnings.warn({canary!r}, UserWarning)
thread = threading.Thread(target=lambda: int({canary!r}))
thread.start(); thread.join()
class Loud:
    def __del__(self): raise ValueError({canary!r})
    def __repr__(self): return {canary!r}
Loud()
logging.getLogger("library").warning({canary!r})
logging.getLogger("app").info("%d", {canary!r})
raise KeyError({canary!r})
"""


def test_nothing_else_of_a_process_prints_what_users_wrote(log_format: LogFormat) -> None:
    """Warnings, threads, finalizers, handlers of libraries, faulty calls of a logger, and the process's own end."""
    code = PROCESS.format(log_format=log_format, canary=CANARY)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert CANARY not in child.stdout + child.stderr
    for word in (
        "UserWarning",
        "ValueError",
        "KeyError",
        "withheld",
        "critical" if log_format == "json" else "CRITICAL",
    ):
        assert word in child.stderr
    if log_format == "json":
        assert all(json.loads(line)["process"] == "test" for line in child.stderr.splitlines())


def test_the_validators_of_the_tests_do_quote() -> None:
    """Else the tests above would show nothing."""
    assert CANARY in str(raised(QUOTING[0]))
    assert isinstance(raised(QUOTING[0]), ValidationError)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.warn(CANARY, stacklevel=1)
    assert CANARY in str(seen[0].message)
