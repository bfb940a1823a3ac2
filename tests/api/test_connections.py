"""What a client may hold before a request is there: heads, time, connections. With both HTTP parsers."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.api.serving.connections import MAX_HEAD_BYTES, MAX_PIPELINED
from testing.node import Node
from testing.waiting import PATIENCE_S
from testing.wire import Answer, Wire, connect
from tests.api.conftest import Serve

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MEGABYTE = 1_000_000


def assert_problem(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (json.loads(answer.body)["code"], json.loads(answer.body)["status"]) == (code, status)
    assert answer.headers["connection"] == "close"
    assert json.loads(answer.body)["request_id"] == answer.headers["x-request-id"]


def flood(wire: Wire, piece: bytes) -> None:
    """Send pieces until nobody listens any more."""
    sent = 0
    while sent < 200 * MEGABYTE and wire.send(piece):
        sent += len(piece)
    assert sent < 200 * MEGABYTE, "everything was taken"


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (GET + b"x-long: ", b"a" * 65_536),
        (GET, b"a: b\r\n" * 10_000),
        (GET, b"n" * 65_536),
        (b"GET /", b"a" * 65_536),
        (b"GET /livez?", b"a=1&" * 16_384),
        (CHUNKED + b"1;", b"e" * 65_536),
        (CHUNKED + b"1\r\n{\r\n0\r\nx: ", b"t" * 65_536),
        (CHUNKED + b"1\r\n{\r\n0\r\n", b"t: u\r\n" * 10_000),
    ],
    ids=["value", "headers", "name", "path", "query", "chunk extension", "trailer", "trailers"],
)
def test_what_never_ends_is_refused_while_others_are_answered(served: Serve, start: bytes, piece: bytes) -> None:
    with served() as node, connect(node.http) as wire:
        before = resident_bytes()
        assert wire.send(start)
        with ThreadPoolExecutor(1) as threads:
            flooding = threads.submit(flood, wire, piece)
            answers = [node.http.get("/livez").status_code]
            while not flooding.done():
                answers.append(node.http.get("/livez").status_code)
            flooding.result()
        assert set(answers) == {200}
        assert wire.read().status == 431
        assert wire.is_closed()
        assert resident_bytes() - before < 50 * MEGABYTE


def test_a_head_may_have_64_kib_and_not_one_byte_more(served: Serve) -> None:
    room = MAX_HEAD_BYTES - len(GET + b"x: \r\n\r\n")
    with served() as node:
        with connect(node.http) as wire:
            assert wire.send(GET + b"x: " + b"a" * room + b"\r\n\r\n")
            assert wire.read().status == 200
            assert wire.send(GET + b"\r\n"), "the connection is kept"
            assert wire.read().status == 200
        with connect(node.http) as wire:
            assert wire.send(GET + b"x: " + b"a" * (room + 1) + b"\r\n\r\n")
            assert_problem(wire.read(), 431, "head_too_large")
            assert wire.is_closed()


def test_a_second_head_on_a_connection_is_bounded_too(served: Serve) -> None:
    with served() as node, connect(node.http) as wire:
        assert wire.send(GET + b"\r\n")
        assert wire.read().status == 200
        flood(wire, b"x" * 65_536)
        assert wire.read().status in (400, 431)


@pytest.mark.parametrize("start", [b"G", GET, GET + b"x: y"], ids=["letter", "line", "header"])
def test_a_head_that_is_not_finished_is_408(served: Serve, start: bytes) -> None:
    with served(head_timeout_s=0.3) as node, connect(node.http) as wire:
        assert wire.send(start)
        assert_problem(wire.read(), 408, "head_too_slow")
        assert wire.is_closed()


def test_a_head_that_comes_byte_by_byte_is_408_all_the_same(served: Serve) -> None:
    with served(head_timeout_s=0.3) as node, connect(node.http) as wire:
        assert wire.send(GET + b"x: ")
        wire.sock.settimeout(0.02)
        for _ in range(round(PATIENCE_S / 0.02)):
            assert wire.send(b"a")
            try:
                assert_problem(wire.read(), 408, "head_too_slow")
                break
            except TimeoutError:
                pass
        else:
            pytest.fail("nobody minded")


def test_the_next_head_on_a_connection_has_the_same_time(served: Serve) -> None:
    with served(head_timeout_s=0.3) as node, connect(node.http) as wire:
        assert wire.send(GET + b"\r\n")
        assert wire.read().status == 200
        assert wire.send(b"G")
        assert_problem(wire.read(), 408, "head_too_slow")


def test_blank_lines_between_requests_do_not_keep_a_connection(served: Serve) -> None:
    with served(head_timeout_s=0.3) as node, connect(node.http) as wire:
        assert wire.send(GET + b"\r\n")
        assert wire.read().status == 200
        assert wire.send(b"\r\n")
        assert wire.read().status in (400, 408)  # h11 refuses them, httptools waits for more
        assert wire.is_closed()


def test_a_connection_that_says_nothing_is_closed(served: Serve) -> None:
    with served(head_timeout_s=0.3) as node, connect(node.http) as wire:
        assert wire.is_closed()


def test_the_body_of_a_request_that_was_answered_cannot_come_for_ever(served: Serve) -> None:
    with served(head_timeout_s=0.3) as node, connect(node.http) as wire:
        assert wire.send(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
        assert wire.read().status == 404
        wire.sock.settimeout(0.02)
        deadline = time.monotonic() + PATIENCE_S
        while wire.send(b"a"):
            assert time.monotonic() < deadline, "nobody minded"
            try:
                assert wire.is_closed()
                break
            except TimeoutError:
                pass


def test_a_request_under_way_is_not_measured_by_the_time_of_its_head(served: Serve) -> None:
    with served(head_timeout_s=0.2) as node, connect(node.http) as wire:
        node.models.diffusion.gate.clear()
        body = b'{"prompt": "a fox"}'
        assert wire.send(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert node.models.diffusion.stepping.wait(PATIENCE_S)
        with connect(node.http) as other:  # closed by the same limit, but later
            assert other.is_closed()
        node.models.diffusion.gate.set()
        assert wire.read().status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\nHost x",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
    ids=["nonsense", "no host", "header", "length", "chunk"],
)
def test_what_is_not_http_is_a_problem_too(served: Serve, request_bytes: bytes) -> None:
    with served() as node, connect(node.http) as wire:
        assert wire.send(request_bytes)
        answer = wire.read()
        if request_bytes.endswith(b"Host x") and answer.status == 404:  # httptools asks for no host
            return
        assert_problem(answer, 400, "malformed_request")
        assert wire.is_closed()


def test_garbage_behind_a_sound_request_leaves_its_answer_alone(served: Serve) -> None:
    body = b'{"prompt": "a fox"}'
    with served() as node, connect(node.http) as wire:
        assert wire.send(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body + b"\x00\x01garbage\r\n\r\n")
        answer = wire.read()
        assert (answer.status, len(json.loads(answer.body)["images"])) == (200, 1)
        rest = wire.read_to_end()  # h11 answers the garbage, httptools reads it too early to be able to
        assert rest == b"" or rest.startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_are_answered_in_turn_and_bounded(served: Serve) -> None:
    with served() as node, connect(node.http) as wire:
        assert wire.send((GET + b"\r\n") * (MAX_PIPELINED // 2))
        assert [wire.read().status for _ in range(MAX_PIPELINED // 2)] == [200] * (MAX_PIPELINED // 2)
        before = resident_bytes()
        wire.send((GET + b"\r\n") * 30_000)
        assert wire.read().status == 200
        assert resident_bytes() - before < 50 * MEGABYTE
        assert node.http.get("/livez").status_code == 200


def test_idle_connections_give_way_to_new_ones(served: Serve) -> None:
    with served(max_connections=4, max_connections_per_address=0) as node, ExitStack() as stack:
        idle = [stack.enter_context(connect(node.http)) for _ in range(20)]
        with connect(node.http) as wire:
            assert wire.send(GET + b"\r\n")
            assert wire.read().status == 200
        assert all(wire.is_closed() for wire in idle[:15])


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
def test_where_all_connections_are_at_work_one_more_is_refused(served: Serve, limit: str) -> None:
    body = b'{"prompt": "a fox"}'
    with served(**{limit: 2}) as node, ExitStack() as stack:
        node.models.diffusion.gate.clear()
        busy = [stack.enter_context(connect(node.http)) for _ in range(2)]
        for wire in busy:
            assert wire.send(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: sum(node.models.engine.in_flight().values()) == 2)
        with connect(node.http) as wire:
            answer = wire.read()
            assert_problem(answer, 503, "too_many_connections")
            assert int(answer.headers["retry-after"]) >= 1
            assert wire.is_closed()
        node.models.diffusion.gate.set()
        assert [wire.read().status for wire in busy] == [200, 200]
        with connect(node.http) as wire:
            assert wire.send(GET + b"\r\n")
            assert wire.read().status == 200


def test_the_engine_socket_is_bounded_too(served: Serve) -> None:
    with served() as node, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(node.settings.engine_socket))
        wire = Wire(sock)
        assert wire.send(b"POST /feature-batch HTTP/1.1\r\nx: ")
        flood(wire, b"a" * 65_536)
        assert wire.read().status == 431


def test_a_client_that_never_reads_is_dropped(served: Serve) -> None:
    request = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with served(body_timeout_s=0.5) as node, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect((node.http.base_url.host, node.http.base_url.port))
        sock.sendall(request * (MAX_PIPELINED // 2))  # together more than the kernel's buffers take
        wait_until(lambda: not is_held(node, sock))
        assert node.http.get("/livez").status_code == 200


def is_held(node: Node, sock: socket.socket) -> bool:
    """Tell whether the kernel still has the server's end of a client's connection."""
    ports = [f"{node.http.base_url.port:04X}", f"{sock.getsockname()[1]:04X}"]
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any([end.partition(":")[2] for end in row[1:3]] == ports for row in rows)


def resident_bytes() -> int:
    """Return the memory that this process, and so the node, holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)
