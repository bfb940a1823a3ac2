"""Bodies that arrive slowly: as long as they come steadily they may, whatever they are."""

import json
import socket
import threading
from collections.abc import Sequence

import pytest

from testing.uploads import picture
from testing.wire import Answer, Wire, connect
from tests.api.conftest import Serve

SILENCE_S = 0.6
JSON = json.dumps({"prompt": "a fox"}).encode()
FORM = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + picture(1) + b"\r\n--b--\r\n"
HEAD = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n"


def pieces_of(body: bytes, number: int) -> list[bytes]:
    size = -(-len(body) // number)
    return [body[start : start + size] for start in range(0, len(body), size)]


def send_slowly(wire: Wire, pieces: Sequence[bytes], pause_s: float) -> None:
    """Send a piece, pause, and so on; as a client on a slow line does, so the pauses are the test."""
    for piece in pieces:
        if not wire.send(piece):
            return
        threading.Event().wait(pause_s)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [(b"/generate", b"application/json", JSON), (b"/classify", b"multipart/form-data; boundary=b", FORM)],
    ids=["json", "multipart"],
)
def test_a_steady_body_may_take_longer_than_the_longest_silence(
    served: Serve, path: bytes, media_type: bytes, body: bytes, framing: str
) -> None:
    pieces = pieces_of(body, 12)
    if framing == "chunked":
        field = b"Transfer-Encoding: chunked"
        pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    else:
        field = b"Content-Length: %d" % len(body)
    with served(body_timeout_s=SILENCE_S, min_upload_rate=1) as node, connect(node.http) as wire:
        assert wire.send(HEAD % (path, media_type) + field + b"\r\n\r\n")
        send_slowly(wire, pieces, SILENCE_S / 4)
        assert wire.read().status == 200


def assert_too_slow(answer: Answer) -> None:
    assert (answer.status, answer.headers["content-type"]) == (408, "application/problem+json")
    assert json.loads(answer.body)["code"] == "body_too_slow"
    assert answer.headers["connection"] == "close"


def test_a_body_that_stops_is_408(served: Serve) -> None:
    with served(body_timeout_s=SILENCE_S, min_upload_rate=1) as node, connect(node.http) as wire:
        assert wire.send(HEAD % (b"/generate", b"application/json") + b"Content-Length: 100\r\n\r\n")
        send_slowly(wire, pieces_of(b" " * 10, 5), SILENCE_S / 4)
        assert_too_slow(wire.read())
        assert wire.is_closed()


def test_one_byte_now_and_then_is_408(served: Serve) -> None:
    with served(body_timeout_s=SILENCE_S, min_upload_rate=1_000) as node, connect(node.http) as wire:
        assert wire.send(HEAD % (b"/generate", b"application/json") + b"Content-Length: 1000\r\n\r\n")
        sending = threading.Thread(target=send_slowly, args=(wire, [b" "] * 100, SILENCE_S / 6))
        sending.start()
        assert_too_slow(wire.read())
        sending.join()


def test_what_came_fast_at_first_buys_no_more_than_the_longest_silence(served: Serve) -> None:
    with served(body_timeout_s=SILENCE_S, min_upload_rate=1_000) as node, connect(node.http) as wire:
        assert wire.send(HEAD % (b"/generate", b"application/json") + b"Content-Length: 200000\r\n\r\n")
        assert wire.send(b" " * 100_000)  # a hundred seconds' worth
        assert_too_slow(wire.read())


def test_the_socket_of_the_engine_gives_up_a_silent_body_too(served: Serve) -> None:
    with served(body_timeout_s=SILENCE_S) as node, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(node.settings.engine_socket))
        wire = Wire(sock)
        assert wire.send(HEAD % (b"/feature-batch", b"image/png") + b"Content-Length: 100\r\n\r\nabc")
        assert_too_slow(wire.read())
