"""The command line of the soak: start the node, load it, look at it, and say what held.

Progress goes to standard error; a table and one line of JSON to standard output. Exit code 1 when a limit is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from bench.soak.agreement import counted_by_node, disagreements
from bench.soak.limits import broken_limits, told_secrets
from bench.soak.load import Tally, run_clients
from bench.soak.requests import MARK, Keys

START_TIMEOUT_S = 300.0
DRAIN_TIMEOUT_S = 60.0
WARM_AFTER_S = 120.0
AGREE_TIMEOUT_S = 20.0
NUM_CLIENTS = 8

# Bounds of a key that a client which asks for up to four images at a time exceeds.
CAPPED = ("--requests-per-minute", "6", "--concurrent-images", "2")


def environment(folder: Path, num_threads: int) -> dict[str, str]:
    """Return the environment of the node's processes."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("FOXHOUND_", "DATABASE_URL"))}
    env |= {"FOXHOUND_DATA_DIR": str(folder / "data"), "FOXHOUND_DATABASE_URL": f"sqlite:///{folder / 'soak.db'}"}
    return env | {"FOXHOUND_NUM_THREADS": str(num_threads)}


def prepared(env: dict[str, str]) -> tuple[Keys, str]:
    """Migrate the database; returns the keys of the clients, and one that may scrape."""

    def foxhound(*arguments: str) -> bytes:
        return subprocess.check_output([sys.executable, "-m", "app.cli.main", *arguments], env=env)

    def key(name: str, *options: str) -> str:
        return str(json.loads(foxhound("keys", "create", name, *options, "--json"))["key"])

    foxhound("migrate")
    keys = Keys(
        good=key("good", "--scope", "generate"),
        capped=key("capped", "--scope", "generate", *CAPPED),
        reader=key("reader", "--scope", "read"),
    )
    return keys, key("operator", "--scope", "admin")


@contextmanager
def started_node(folder: Path, env: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve a node with the demo pack in a process of its own."""
    with (folder / "node.log").open("wb") as log:
        command = [sys.executable, "-m", "bench.soak.node", str(port), str(folder / "state.json")]
        node = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            yield node
        finally:
            node.kill()
            node.wait()


def wait_until_ready(url: str, node: subprocess.Popen[bytes]) -> None:
    """Wait until `/readyz` answers 200."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and node.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit("the node did not become ready")


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def soak(url: str, num_clients: int, seconds: float, pid: int, keys: Keys, tally: Tally) -> tuple[int, int]:
    """Load the node; returns its memory once warm and at the end."""
    clients = asyncio.ensure_future(run_clients(url, num_clients, seconds, keys, tally))
    await asyncio.sleep(min(WARM_AFTER_S, seconds / 2))
    warm = rss_bytes(pid)
    await clients
    return warm, rss_bytes(pid)


def drained_state(state_file: Path) -> dict[str, Any]:
    """Stop the faults, and return the engine's state once it is empty or has had its time."""
    state_file.with_suffix(".stop").touch()
    time.sleep(2)
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while (state := json.loads(state_file.read_text()))["in_flight"] and time.monotonic() < deadline:
        time.sleep(1)
    return dict(state)


def compared(url: str, key: str, tally: Tally) -> tuple[list[str], str]:
    """Tell where `/metrics` and the clients disagree, once the node has ended the requests whose clients left.

    Returns:
        The differences, and the last scrape.
    """
    deadline = time.monotonic() + AGREE_TIMEOUT_S
    while True:
        scrape = httpx.get(f"{url}/metrics", headers={"x-api-key": key}, timeout=60).text
        node, images = counted_by_node(scrape)
        found = disagreements(tally.by_route, tally.images, node, images)
        if not found or time.monotonic() > deadline:
            return found, scrape
        time.sleep(0.5)


def table(counts: Counter[tuple[str, str]]) -> str:
    """Lay out requests by kind and outcome."""
    lines = [f"{'request':<10} {'outcome':<12} {'number':>8}"]
    lines += [f"{kind:<10} {outcome:<12} {number:>8}" for (kind, outcome), number in sorted(counts.items())]
    return "\n".join(lines)


def main() -> int:
    """Run the soak; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=NUM_CLIENTS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of a forward")
    args = parser.parse_args()
    minutes: float = args.minutes
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = int(sock.getsockname()[1])
        url, tally = f"http://127.0.0.1:{port}", Tally()
        env = environment(folder, args.threads)
        keys, operator = prepared(env)
        with started_node(folder, env, port) as node:
            wait_until_ready(url, node)
            print(f"the node is ready; {minutes:g} minutes of load", file=sys.stderr)
            memory = asyncio.run(soak(url, args.clients, minutes * 60, node.pid, keys, tally))
            state = drained_state(folder / "state.json")
            differing, scrape = compared(url, operator, tally)
            node.send_signal(signal.SIGTERM)
            exit_code = node.wait(60)
        texts = {"the log": (folder / "node.log").read_text(errors="replace"), "/metrics": scrape}
    told = told_secrets(texts, {"a prompt": MARK, "the operator's key": operator, **asdict(keys)})
    broken = broken_limits(tally.counts, memory, state, exit_code) + differing + told
    print(table(tally.counts))
    print(f"resident memory {memory[0] / 2**20:.0f} -> {memory[1] / 2**20:.0f} MiB; engine at the end: {state}")
    agreed = "disagrees with" if differing else "agrees exactly with"
    print(f"/metrics {agreed} the clients: {tally.by_route.total()} requests, {tally.images} images seen")
    print("\n".join(broken) or "every limit held")
    outcomes = {f"{kind} {outcome}": number for (kind, outcome), number in sorted(tally.counts.items())}
    print(json.dumps({"minutes": minutes, "outcomes": outcomes, "rss": memory, "state": state, "broken": broken}))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
