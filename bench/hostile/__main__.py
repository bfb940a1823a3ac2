"""The command line: start a node, attack it in each way, and say what a good client had of it.

Each attack has an idle while before it, in the same place of the machine's moods. The attacker's own processor time
belongs to another machine, so on this one it has what the node leaves. As root, `setsid python -m bench.hostile` puts
node, good client and attacker before everything else that runs. Progress goes to standard error; a table and one line
of JSON to standard output. Exit code 1 when anything was exceeded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from app.modelpacks.pack import demo_pack_folder
from bench.generate.pipeline import Subject
from bench.generate.servers import foxhound, running, versions
from bench.hostile.attacks import ATTACKS
from bench.hostile.good import GoodClient, Watch
from bench.hostile.limits import MAX_P95_RATIO, MEMORY_MARGIN, Result, as_json, table

# Beyond its own time, an attack gets this long to see its last answers.
LAST_ANSWERS_S = 60.0
SETTLE_TIMEOUT_S = 30.0
WARM_UP_S = 5.0


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def api_process(supervisor: int) -> int:
    """Return the process id of the supervisor's child that serves the API."""
    for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        if Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(b"api"):
            return int(pid)
    raise SystemExit("the node has no API process")


def go_first(session: int) -> None:
    """Put a session's processes before all others, as far as this process may; Linux shares time out by sessions."""
    with contextlib.suppress(OSError):
        if os.getsid(session) == session:
            Path(f"/proc/{session}/autogroup").write_text("-20")


def watched(client: GoodClient, seconds: float) -> Watch:
    """Let the good client ask for so long."""
    over = threading.Event()
    threading.Timer(seconds, over.set).start()
    return client.watch(over)


def attacked(client: GoodClient, command: list[str], seconds: float) -> tuple[Watch, dict[str, int]]:
    """Attack in a process of its own, and let the good client ask meanwhile; returns how both were answered."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as attack:
        assert attack.stdin is not None
        assert attack.stdout is not None
        attack.stdout.readline()  # its bytes are made
        attack.stdin.write("go\n")
        attack.stdin.flush()
        seen = watched(client, seconds)
        try:
            told, _ = attack.communicate(timeout=LAST_ANSWERS_S)
        except subprocess.TimeoutExpired:
            attack.kill()
            told, _ = attack.communicate()
        return seen, json.loads(told or "{}")


def settled_memory(pid: int, before: int) -> int:
    """Return the memory once it is back within the margin, or has had its time."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while (now := rss_bytes(pid)) > before + MEMORY_MARGIN and time.monotonic() < deadline:
        time.sleep(0.5)
    return now


def run_attack(client: GoodClient, url: str, pid: int, dataset_id: str, name: str, seconds: float) -> Result:
    """Make one attack and look at everything."""
    idle, before = watched(client, seconds / 2), rss_bytes(pid)
    host, port = httpx.URL(url).host, str(httpx.URL(url).port)
    command = [sys.executable, "-m", "bench.hostile.attacks", name, host, port, dataset_id, str(seconds)]
    seen, outcomes = attacked(client, command, seconds)
    next_one = Watch()
    client.turn(next_one)
    tidy(url)
    return Result(
        attack=name,
        idle_p95_ms=idle.p95_ms,
        p95_ms=seen.p95_ms,
        idle_pause_ms=idle.pause_ms,
        pause_ms=seen.pause_ms,
        memory_before=before,
        memory_after=settled_memory(pid, before),
        next_is_good=not next_one.faults,
        outcomes=outcomes,
        faults=seen.faults,
    )


def make_dataset(url: str) -> str:
    """Make a dataset that takes uploads, and return its id."""
    classes = [{"name": name, "prompts": [name]} for name in ("fox", "dog")]
    body = {"name": "attacked", "classes": classes, "train_per_class": 0, "test_per_class": 0}
    return str(httpx.post(f"{url}/datasets", json=body, timeout=60).raise_for_status().json()["id"])


def tidy(url: str) -> None:
    """Delete the datasets that an attack has left, so that the next one finds the node as this one did."""
    items = httpx.get(f"{url}/datasets?limit=100", timeout=120).json()["items"]
    for item in items:
        if item["name"] != "attacked":
            httpx.delete(f"{url}/datasets/{item['id']}", timeout=60)


def main() -> int:
    """Run all attacks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each attack (default: 8)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of the node's models")
    parser.add_argument("--only", choices=sorted(ATTACKS), action="append", help="may be repeated; default: all")
    arguments = parser.parse_args()
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        subject = Subject(demo_pack_folder(), "cpu", arguments.threads)
        with running(foxhound(), subject, Path(folder) / "node.log") as node:
            go_first(node.pid)
            go_first(os.getpid())
            client, pid = GoodClient(node.url), api_process(node.pid)
            dataset_id = make_dataset(node.url)
            watched(client, WARM_UP_S)
            for name in arguments.only or ATTACKS:
                results.append(run_attack(client, node.url, pid, dataset_id, name, arguments.seconds))
                told = f"{results[-1].ratio:.2f} x, {results[-1].outcomes}; {results[-1].missed() or 'held'}"
                print(f"{time.strftime('%H:%M:%S')}  {name}: {told}", file=sys.stderr, flush=True)
            client.close()
    missed = [result.attack for result in results if result.missed()]
    print(table(results))
    print(f"target: p95 at most {MAX_P95_RATIO} x idle; missed by {len(missed)} of {len(results)} attacks")
    facts = {"bench": "hostile", "seconds": arguments.seconds, "threads": arguments.threads, "versions": versions()}
    print(json.dumps({**facts, "missed": missed, "attacks": [as_json(result) for result in results]}))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
