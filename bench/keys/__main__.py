"""`python -m bench.keys`: a table and one line of JSON; 1 if the target is missed.

One node serves `/classify` with models that answer at once, from a thread of this process. A header of the request
selects what stands in front of the routes: nothing, the layer that checks keys on a node without keys, or that layer on
a node with 100 keys, one of which is sent. The three get the same request by turns, one at a time on one socket, so
that a machine whose speed wanders treats them alike; three nodes differ by several percent though they do the same.
Requests are bytes made beforehand: a client library's time would make the share of the check look smaller.
"""

import argparse
import base64
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from app.access import caller as callers
from app.access.keys import create_key
from app.api.access.layer import AccessLayer
from app.api.middleware import BodyLimits, HttpMiddleware
from app.api.serving.server import Server
from app.config import Settings
from app.db.migrations import migrate
from app.db.session import Database
from app.jobs.migrations import migrate_job_engine
from app.main import create_app, server_config
from app.wiring import authenticator
from bench.generate.servers import versions
from testing.fake_models import FakeModels
from testing.node import make_settings
from testing.uploads import picture
from testing.waiting import wait_until

TARGET = 0.03
VARIANTS = BASE, OPEN, KEYED = "no check", "check, no keys", "check, a key"
HEADER = "x-variant"
NUM_KEYS = 100
WARM_UP = 100


class Switch:
    """Hands a request to one of several applications, as its header says."""

    def __init__(self, apps: Mapping[str, ASGIApp]) -> None:
        """Use the applications by the values of the header."""
        self._apps = {name.encode(): app for name, app in apps.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the lifespan."""
        name = next((value for key, value in scope.get("headers", ()) if key == HEADER.encode()), BASE.encode())
        await self._apps[name](scope, receive, send)


class NoCheck:
    """Stands where the layer stands, and lets everybody in."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            scope["state"]["caller"] = callers.LOCAL
        await self._app(scope, receive, send)


@contextmanager
def node(folder: Path) -> Iterator[tuple[int, str]]:
    """Serve a node until the block ends, and yield its port and a key."""
    settings, key = prepare(folder / "keyed", NUM_KEYS)
    empty, _ = prepare(folder / "empty", 0)
    app = create_app(settings, start_models=FakeModels().start)
    with closing(Database(empty.resolved_database_url)) as db:
        no_keys = authenticator(empty, db)
        variants: dict[str, ASGIApp] = {
            BASE: NoCheck(app),
            OPEN: AccessLayer(app, lambda: no_keys),
            KEYED: AccessLayer(app, lambda: app.state.authenticator),
        }
        served = HttpMiddleware(Switch(variants), body=BodyLimits(), draining=app.state.draining)
        server = Server(server_config(app, served=served), app)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_until(lambda: server.started or not thread.is_alive())
        try:
            yield server.servers[0].sockets[0].getsockname()[1], key
        finally:
            server.should_exit = True
            thread.join()


def prepare(folder: Path, num_keys: int) -> tuple[Settings, str]:
    """Make a data folder and a database with so many keys; return the settings and one of the keys."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'foxhound.db'}"
    migrate(url)
    migrate_job_engine(url)
    with closing(Database(url)) as db:
        made = [create_key(db, f"key-{number}", [callers.Scope.GENERATE]) for number in range(num_keys)]
    return make_settings(folder / "data", url), made[-1].key if made and made[-1] else ""


def request_bytes(side: int, variant: str, key: str) -> bytes:
    """Return a whole request that classifies a noisy PNG of `side` pixels, >= 1; every variant has the same length."""
    image = base64.b64encode(picture(0, size=(side, side))).decode()
    body = json.dumps({"image_b64": image}).encode()
    fields = {"Host": "bench", "Content-Type": "application/json", "Content-Length": str(len(body)), HEADER: variant}
    fields["Authorization"] = f"Bearer {key}"
    return (
        "".join(["POST /classify HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in fields.items()), "\r\n"]).encode() + body
    )


def send(sock: socket.socket, request: bytes) -> float:
    """Send a request, read its answer, and return the seconds from the first to the last byte."""
    began = time.perf_counter()
    sock.sendall(request)
    answer = sock.recv(65_536)
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:])
    while len(body) < int(fields[b"content-length"]):
        body += sock.recv(65_536)
    return time.perf_counter() - began


def measure(rounds: int, side: int) -> dict[str, list[float]]:
    """Return the seconds of each request of each variant, `rounds` >= 1 of them, in order."""
    with tempfile.TemporaryDirectory() as name, node(Path(name)) as (port, key):
        requests = {variant: request_bytes(side, variant, key) for variant in VARIANTS}
        taken: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
        order = list(VARIANTS)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for turn in range(WARM_UP + rounds):
                random.shuffle(order)
                for variant in order:
                    seconds = send(sock, requests[variant])
                    if turn >= WARM_UP:
                        taken[variant].append(seconds)
        return taken


def overheads_of(taken: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median extra time of each variant within a round, as a share of the median without a check."""
    base = taken[BASE]
    whole = statistics.median(base)
    return {
        variant: statistics.median(mine - theirs for mine, theirs in zip(seconds, base, strict=True)) / whole
        for variant, seconds in taken.items()
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.keys", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3_000, help="requests to each node (default: 3000)")
    parser.add_argument("--side", type=int, default=128, help="sides of the classified image, in pixels (default: 128)")
    arguments = parser.parse_args()
    taken = measure(arguments.rounds, arguments.side)
    overheads = overheads_of(taken)
    print(f"| /classify, {arguments.side} px, fake engine | median ms | p99 ms | overhead |\n| --- | --- | --- | --- |")
    for variant, seconds in taken.items():
        p99 = statistics.quantiles(seconds, n=100)[98]
        print(f"| {variant} | {statistics.median(seconds) * 1e3:.3f} | {p99 * 1e3:.3f} | {overheads[variant]:+.1%} |")
    print(f"\ntarget: a key costs at most {TARGET:.0%}")
    facts: dict[str, Any] = {"bench": "keys", "rounds": arguments.rounds, "side": arguments.side, "keys": NUM_KEYS}
    medians = {variant: round(statistics.median(seconds), 6) for variant, seconds in taken.items()}
    shares = {variant: round(share, 4) for variant, share in overheads.items()}
    print(json.dumps({**facts, "versions": versions(), "median_s": medians, "overhead": shares}))
    return int(overheads[KEYED] > TARGET)


if __name__ == "__main__":
    sys.exit(main())
