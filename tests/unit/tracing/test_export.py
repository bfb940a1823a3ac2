"""Spans reach a collector of OTLP over HTTP that the standard variables name."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.tracing.otel import otel_tracing


class Collector(HTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("env", "name"), [({}, b"foxhound"), ({"OTEL_SERVICE_NAME": "gpu-one"}, b"gpu-one")])
def test_spans_are_sent_with_the_name_of_the_service(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], name: bytes
) -> None:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        for variable, value in env.items():
            monkeypatch.setenv(variable, value)
        tracing = otel_tracing("1.2.3")
        with tracing.span("job", {}):
            pass
        tracing.close()
        collector.shutdown()
    [(path, body)] = collector.received
    assert path == "/v1/traces"
    assert name in body
    assert b"1.2.3" in body
