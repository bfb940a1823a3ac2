"""A request whose caller gives it up: the other end sees the connection end, before it has answered."""

import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, UnixStreamServer

import pytest

from app.node.abortable import post_abortably
from testing.waiting import PATIENCE_S


class _Server(UnixStreamServer):
    """Answers a request once `answers` is set, or notes that its client has left."""

    def __init__(self, path: Path) -> None:
        self.asked, self.left, self.answers = threading.Event(), threading.Event(), threading.Event()
        super().__init__(str(path), _Handler)


class _Handler(BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        if self.server.answers.is_set():
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        while self.request.recv(65_536):
            self.server.asked.set()
        self.server.left.set()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    with _Server(tmp_path / "engine.sock") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_request_that_is_given_up_ends_at_the_other_end_too(server: _Server, tmp_path: Path) -> None:
    def give_up() -> None:
        assert server.asked.wait(PATIENCE_S)
        raise KeyError("cancelled")

    with pytest.raises(KeyError, match="cancelled"):
        post_abortably(tmp_path / "engine.sock", "/epoch", {"epoch": 1}, check=give_up, every_s=0.01)
    assert server.left.wait(PATIENCE_S)


def test_the_answer_is_returned(server: _Server, tmp_path: Path) -> None:
    server.answers.set()
    answer = post_abortably(tmp_path / "engine.sock", "/epoch", {"epoch": 1}, check=lambda: None, every_s=0.01)
    assert (answer.status_code, answer.json()) == (200, {})
