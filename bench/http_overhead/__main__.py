"""`python -m bench.http_overhead`: a table and one line of JSON; 1 if the target is missed.

One server with our settings of uvicorn, in a thread of this process, and a fake engine that answers at once. A header
of the request selects what answers it: our application without a key, our application on a node with 100 keys, a bare
Starlette application that reads the body and returns the bytes that we return, and one that does the work of the
request as well: it parses the body, decodes the JPEG on a thread and encodes the answer. The variants get the same
request by turns, one at a time on one socket, so that a machine whose speed wanders treats them alike. `--profile`
prints where our application spends its time.
"""

from __future__ import annotations

import argparse
import base64
import cProfile
import io
import json
import os
import pstats
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from torchvision.transforms.functional import to_tensor

from app.api.serving.server import Server
from app.db.session import Database
from app.main import create_app, server_config, with_middleware
from app.wiring import authenticator
from bench.generate.servers import versions
from bench.keys.__main__ import HEADER, NUM_KEYS, Switch, prepare, send
from testing.fake_models import FakeModels
from testing.uploads import picture
from testing.waiting import wait_until

TARGET = 1.5
BARE, WORKING, OPEN, KEYED = "bare", "bare, with the work", "foxhound", "foxhound, a key"
VARIANTS = BARE, WORKING, OPEN, KEYED
JSON_BODY, FORM_BODY = "JSON", "multipart"
WARM_UP = 100
PROFILE = "/profile"
# Functions that the profile shows.
PROFILED = 45


class _WithOtherKeys:
    """Our application with another authenticator, for `with_middleware`."""

    def __init__(self, app: FastAPI, keys: Any) -> None:
        names = ("settings", "draining", "metrics", "tracing")
        self._app = app
        self.state = SimpleNamespace(**{name: getattr(app.state, name) for name in names}, authenticator=keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Node:
    """What is served.

    Attributes:
        port: Of 127.0.0.1.
        key: A valid key.
        answer: What the bare application returns; set once ours has answered.
        profiler: Of the event loop's thread.
    """

    port: int
    key: str
    answer: list[bytes]
    profiler: cProfile.Profile


def bare(answer: list[bytes]) -> ASGIApp:
    """Return the application that reads a body and returns the given bytes."""

    async def classify(request: Request) -> Response:
        await request.body()
        return Response(answer[0], media_type="application/json")

    return Starlette(routes=[Route("/classify", classify, methods=["POST"])])


def working(answer: list[bytes]) -> ASGIApp:
    """Return the application that parses the request, decodes the image and encodes the answer."""

    def decode(data: bytes) -> None:
        with Image.open(io.BytesIO(data)) as image:
            to_tensor(image.convert("RGB"))

    async def classify(request: Request) -> Response:
        if request.headers["content-type"] == "application/json":
            data = base64.b64decode((await request.json())["image_b64"])
        else:
            async with request.form() as form:
                data = await cast(UploadFile, form["image"]).read()
        await run_in_threadpool(decode, data)
        return JSONResponse(json.loads(answer[0]))

    return Starlette(routes=[Route("/classify", classify, methods=["POST"])])


@contextmanager
def serve(folder: Path) -> Iterator[Node]:
    """Serve all variants until the block ends."""
    settings, key = prepare(folder / "keyed", NUM_KEYS)
    empty, _ = prepare(folder / "empty", 0)
    app, answer = create_app(settings, start_models=FakeModels().start), [b"{}"]
    with closing(Database(empty.resolved_database_url)) as db:
        without_keys = cast(FastAPI, _WithOtherKeys(app, authenticator(empty, db)))
        ours = with_middleware(app)
        apps = {BARE: bare(answer), WORKING: working(answer), OPEN: with_middleware(without_keys), KEYED: ours}
        profiler = cProfile.Profile()
        served = _Front(Switch(apps), ours, profiler)
        server = Server(server_config(app, served=served), app)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive())
        try:
            yield Node(server.servers[0].sockets[0].getsockname()[1], key, answer, profiler)
        finally:
            server.should_exit = True
            thread.join()


class _Front:
    """Hands the lifespan to our application and requests to the switch; `PROFILE` starts and stops the profiler.

    The profiler watches the thread that starts it, which has to be the event loop's.
    """

    def __init__(self, switch: ASGIApp, ours: ASGIApp, profiler: cProfile.Profile) -> None:
        self._switch, self._ours, self._profiler, self._is_on = switch, ours, profiler, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._ours(scope, receive, send)
        elif scope["path"] != PROFILE:
            await self._switch(scope, receive, send)
        else:
            self._profiler.disable() if self._is_on else self._profiler.enable()
            self._is_on = not self._is_on
            await Response(b"ok")(scope, receive, send)


def request_bytes(kind: str, side: int, variant: str, key: str) -> bytes:
    """Return a whole request that classifies a noisy JPEG of `side` pixels, >= 1."""
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(picture(0, size=(side, side)))).convert("RGB").save(jpeg, "JPEG", quality=90)
    if kind == JSON_BODY:
        media_type, body = "application/json", json.dumps({"image_b64": base64.b64encode(jpeg.getvalue()).decode()})
        content = body.encode()
    else:
        media_type = "multipart/form-data; boundary=b"
        head = (
            b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        )
        content = head + jpeg.getvalue() + b"\r\n--b--\r\n"
    fields = {"Host": "127.0.0.1", "Content-Type": media_type, "Content-Length": str(len(content)), HEADER: variant}
    if variant == KEYED:
        fields["Authorization"] = f"Bearer {key}"
    lines = ["POST /classify HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + content


def answer_of(port: int, request: bytes) -> bytes:
    """Return the body of an answer."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nConnection: close\r\n", 1))
        data = b"".join(iter(lambda: sock.recv(65_536), b""))
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    return body


@dataclass(slots=True)
class Taken:
    """The requests of one kind.

    Attributes:
        elapsed_s: Seconds of each.
        processor_s: Processor seconds of each, client and server together: other programs do not change them.
    """

    elapsed_s: list[float] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)


def measure(node: Node, rounds: int, side: int) -> dict[tuple[str, str], Taken]:
    """Send `rounds` >= 1 requests of each body and variant, and return their times."""
    pairs = [(kind, variant) for kind in (JSON_BODY, FORM_BODY) for variant in VARIANTS]
    requests = {pair: request_bytes(*pair[:1], side, pair[1], node.key) for pair in pairs}
    node.answer[0] = answer_of(node.port, requests[JSON_BODY, OPEN])
    taken = {pair: Taken() for pair in pairs}
    with socket.create_connection(("127.0.0.1", node.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for turn in range(WARM_UP + rounds):
            random.shuffle(pairs)
            for pair in pairs:
                before = time.process_time()
                elapsed_s = send(sock, requests[pair])
                processor_s = time.process_time() - before
                if turn >= WARM_UP:
                    taken[pair].elapsed_s.append(elapsed_s)
                    taken[pair].processor_s.append(processor_s)
    return taken


def profile(node: Node, rounds: int, side: int) -> None:
    """Print where the event loop's thread spends its time during requests to our application."""
    requests = [request_bytes(kind, side, OPEN, node.key) for kind in (JSON_BODY, FORM_BODY)]
    switch = f"POST {PROFILE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", node.port)) as sock:
        send(sock, switch)
        for _ in range(rounds):
            for request in requests:
                send(sock, request)
        send(sock, switch)
    pstats.Stats(node.profiler, stream=sys.stderr).sort_stats("tottime").print_stats(PROFILED)


def ratios_of(taken: Mapping[tuple[str, str], Sequence[float]]) -> dict[tuple[str, str], float]:
    """Return the median time of each variant as a multiple of the bare application's with the same body."""
    return {
        (kind, variant): statistics.median(seconds) / statistics.median(taken[kind, BARE])
        for (kind, variant), seconds in taken.items()
    }


def table(taken: Mapping[tuple[str, str], Taken], ratios: Mapping[tuple[str, str], float], side: int) -> Iterator[str]:
    """Return the lines of the table."""
    ratios_cpu = ratios_of({pair: one.processor_s for pair, one in taken.items()})
    yield f"| /classify, a JPEG of {side} px | body | requests/s | p50 ms | p99 ms | of bare | CPU ms | of bare |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for (kind, variant), one in taken.items():
        p50, p99 = statistics.median(one.elapsed_s), statistics.quantiles(one.elapsed_s, n=100)[98]
        times = f"{len(one.elapsed_s) / sum(one.elapsed_s):.0f} | {p50 * 1e3:.3f} | {p99 * 1e3:.3f}"
        cpu = f"{statistics.median(one.processor_s) * 1e3:.3f} | {ratios_cpu[kind, variant]:.2f}"
        yield f"| {variant} | {kind} | {times} | {ratios[kind, variant]:.2f} | {cpu} |"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.http_overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000, help="requests of each kind (default: 1000)")
    parser.add_argument("--side", type=int, default=64, help="sides of the classified image, in pixels (default: 64)")
    parser.add_argument("--profile", action="store_true", help="print a profile of our application on standard error")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serve(Path(name)) as node:
        taken = measure(node, arguments.rounds, arguments.side)
        if arguments.profile:
            profile(node, arguments.rounds, arguments.side)
    ratios = ratios_of({pair: one.elapsed_s for pair, one in taken.items()})
    print(*table(taken, ratios, arguments.side), sep="\n")
    worst = max(ratio for (_, variant), ratio in ratios.items() if variant in (OPEN, KEYED))
    print(f"\nworst ratio: {worst:.2f} (target: at most {TARGET:g}); load average: {os.getloadavg()[0]:.1f}")
    medians = {
        f"{variant}, {kind}": [round(statistics.median(times), 6) for times in (one.elapsed_s, one.processor_s)]
        for (kind, variant), one in taken.items()
    }
    facts: dict[str, Any] = {"bench": "http_overhead", "rounds": arguments.rounds, "side": arguments.side}
    facts |= {"worst": round(worst, 3), "load_average": round(os.getloadavg()[0], 1), "versions": versions()}
    print(json.dumps({**facts, "p50_and_cpu_s": medians}))
    return int(worst > TARGET)


if __name__ == "__main__":
    sys.exit(main())
