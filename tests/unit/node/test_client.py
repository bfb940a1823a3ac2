"""What the worker does, and what its log tells, when the engine is away or of an older release."""

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer

import pytest

from app.jobs.signals import Requeue
from app.node.client import NodeClient


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # httpcore leaves a socket that did not connect to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_log_says_once_that_the_engine_cannot_be_reached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    client = NodeClient(tmp_path / "engine.sock", clock=lambda: now)

    class GivenUp(Exception):
        pass

    def ask() -> None:
        """Try once."""
        tries = iter([None, GivenUp()])

        def keep_waiting() -> None:
            if (error := next(tries)) is not None:
                raise error

        with pytest.raises(GivenUp):
            client.backbone(keep_waiting=keep_waiting)

    def told() -> list[str]:
        """Return the client's own messages: threads of earlier tests may still log."""
        return [record.getMessage() for record in caplog.records if record.name == "app.node.client"]

    with caplog.at_level(logging.WARNING, "app.node.client"):
        ask()
        assert told() == []  # it may be starting
        now = 31.0
        ask()
        ask()
    [message] = told()
    assert "FOXHOUND_RUN_DIR" in message
    client.close()


class _OlderApi(BaseHTTPRequestHandler):
    """An API process whose release has no route of this one."""

    def do_POST(self) -> None:
        body = b'{"code": "not_found", "detail": "There is nothing here."}'
        self.send_response(404)
        self.send_header("Content-Type", "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return ""  # a Unix socket's client has none

    def log_message(self, *_: object) -> None:
        pass


def test_work_waits_for_an_api_process_of_an_older_release(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "engine.sock"
    with UnixStreamServer(str(path), _OlderApi) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = NodeClient(path)
        for _ in range(2):
            tries = iter([None, Requeue()])

            def keep_waiting(tries: Iterator[Requeue | None] = tries) -> None:
                if (error := next(tries)) is not None:
                    raise error

            with pytest.raises(Requeue):
                client.texts(["a fox"], keep_waiting=keep_waiting)
        client.close()
        server.shutdown()
    [told] = [message for message in caplog.messages if "older release" in message]
    assert "/texts" in told
