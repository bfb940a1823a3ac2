"""The database goes away for a moment, in many ways: jobs go on by themselves, and can be steered at once."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from app.db.session import Database
from testing.fake_models import FakeModels
from testing.namespaces import may_do, networked, run
from testing.node import Node, make_settings, serve
from testing.node_process import NodeProcesses, nodes
from testing.outages import Proxy, full_for, proxied
from testing.shared_storage import BODY, NUM_IMAGES, Shared
from testing.waiting import wait_until

NAME = "database.test"
TRAINED = {**BODY, "name": "trained", "train_per_class": 3, "test_per_class": 1}
NUM_TRAINED = 8
END_SESSIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)

Outage = Callable[[NodeProcesses], AbstractContextManager[None]]


@dataclass(frozen=True)
class Case:
    """A database, and how a node is without it.

    Attributes:
        url: Its URL.
        outage: Takes it away from the node for the length of a block.
        node_url: Its URL for the node; default: the same.
        surroundings: What the node's plan has besides.
    """

    url: str
    outage: Outage
    node_url: str = ""
    surroundings: dict[str, Any] = field(default_factory=dict)


def noticed(node: NodeProcesses) -> None:
    """Wait until the worker could not beat, twice."""
    before = node.log().count("heartbeat failed")
    wait_until(lambda: node.log().count("heartbeat failed") >= before + 2)


def worked_on(node: NodeProcesses) -> None:
    """Wait until a chunk's images were rendered, whose record has to wait: where nobody notices anything."""
    wait_until(lambda: len(node.rendered()) >= node.plan.chunk_size)


@contextmanager
def server_stopped(server: Any, how: signal.Signals, node: NodeProcesses) -> Iterator[None]:
    postmaster = psutil.Process(server.get_pid())
    postmaster.send_signal(how)
    if how == signal.SIGTERM:  # waits for every client to leave, and refuses new ones; then it is stopped in earnest
        yield
        postmaster.send_signal(signal.SIGINT)
        postmaster.wait()
    else:
        postmaster.wait()
        noticed(node)
        yield
    server.start()


@contextmanager
def socket_gone(url: str, server: Any, node: NodeProcesses) -> Iterator[None]:
    db = Database(url)
    with db.engine.connect() as connection:
        socket = Path(server.pgdata) / ".s.PGSQL.5432"
        hidden = socket.rename(socket.with_name("hidden"))
        connection.execute(END_SESSIONS)
    db.close()
    noticed(node)
    yield
    hidden.rename(socket)


@contextmanager
def refused(proxy: Proxy, node: NodeProcesses) -> Iterator[None]:
    proxy.cut()
    noticed(node)
    yield
    proxy.mend()


@contextmanager
def reset(proxy: Proxy, node: NodeProcesses) -> Iterator[None]:
    proxy.drop(rudely=True)
    yield
    worked_on(node)
    proxy.drop(rudely=True)


@contextmanager
def silent(proxy: Proxy, node: NodeProcesses) -> Iterator[None]:
    proxy.stall()
    yield
    worked_on(node)
    proxy.drop()
    proxy.flow()


@contextmanager
def name_gone(proxy: Proxy, hosts: Path, node: NodeProcesses) -> Iterator[None]:
    before = hosts.read_text()
    hosts.write_text("127.0.0.1 localhost\n")
    proxy.drop()
    noticed(node)
    yield
    hosts.write_text(before)


@contextmanager
def disk_full(folder: Path, node: NodeProcesses) -> Iterator[None]:
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            wait_until(lambda: "disk is full" in node.log())
            yield
    (folder / "filler").unlink()


@contextmanager
def disk_failing(node: NodeProcesses) -> Iterator[None]:
    assert node.worker.pid is not None
    with full_for(node.worker.pid):
        wait_until(node.log)
        yield
        worked_on(node)


@contextmanager
def on_server(request: pytest.FixtureRequest, how: signal.Signals) -> Iterator[Case]:
    yield Case(
        request.getfixturevalue("postgres_url"),
        partial(server_stopped, request.getfixturevalue("postgres_process"), how),
    )


@contextmanager
def by_socket(request: pytest.FixtureRequest) -> Iterator[Case]:
    url = request.getfixturevalue("postgres_url")
    yield Case(url, partial(socket_gone, url, request.getfixturevalue("postgres_process")))


@contextmanager
def by_proxy(
    request: pytest.FixtureRequest, outage: Callable[[Proxy, NodeProcesses], AbstractContextManager[None]]
) -> Iterator[Case]:
    url = request.getfixturevalue("postgres_url")
    with proxied(url) as proxy:
        yield Case(url, partial(outage, proxy), proxy.url)


@contextmanager
def by_name(request: pytest.FixtureRequest) -> Iterator[Case]:
    url, etc = request.getfixturevalue("postgres_url"), request.getfixturevalue("tmp_path") / "etc"
    may_do("unshare", "-m", "true")
    etc.mkdir()
    (etc / "hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
    (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    with proxied(url) as proxy:
        yield Case(url, partial(name_gone, proxy, etc / "hosts"), proxy.url_by(NAME), {"etc": etc})


@contextmanager
def by_network(request: pytest.FixtureRequest) -> Iterator[Case]:
    url = request.getfixturevalue("postgres_url")
    with networked() as network, proxied(url, network.here) as proxy:

        @contextmanager
        def unplugged(node: NodeProcesses) -> Iterator[None]:
            network.unplug()
            yield
            worked_on(node)
            proxy.drop()  # the server has given these clients up
            network.plug_in()

        # Longer than a busy machine takes for a chunk: a worker without beats gives its work up.
        yield Case(url, unplugged, proxy.url, {"network": network.name, "ttl_s": 15.0})


@contextmanager
def on_small_disk(request: pytest.FixtureRequest) -> Iterator[Case]:
    disk = request.getfixturevalue("tmp_path") / "disk"
    disk.mkdir()
    may_do("mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk))
    try:
        shutil.copyfile(request.getfixturevalue("sqlite_template"), disk / "foxhound.db")
        yield Case(f"sqlite:///{disk / 'foxhound.db'}", partial(disk_full, disk))
    finally:
        run("umount", "--lazy", str(disk))


@contextmanager
def on_disk(request: pytest.FixtureRequest) -> Iterator[Case]:
    path = request.getfixturevalue("tmp_path") / "foxhound.db"
    shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
    yield Case(f"sqlite:///{path}", disk_failing)


CASES: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Case]]] = {
    "Postgres stopped at once": partial(on_server, how=signal.SIGQUIT),
    "Postgres stopped": partial(on_server, how=signal.SIGINT),
    "Postgres stopped when its clients have left": partial(on_server, how=signal.SIGTERM),
    "socket gone": by_socket,
    "connections refused": partial(by_proxy, outage=refused),
    "connections reset": partial(by_proxy, outage=reset),
    "connections silent": partial(by_proxy, outage=silent),
    "name gone": by_name,
    "network unplugged": by_network,
    "SQLite's disk full": on_small_disk,
    "SQLite's disk failing": on_disk,
}


def is_accepted(front: Node, path: str) -> bool:
    return front.http.post(path).is_success


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with request.param(request) as made:
        yield made


def test_jobs_go_on_by_themselves_after_an_outage_and_can_be_steered_at_once(case: Case, tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data", case.url, run_dir=tmp_path / "front")
    db = Database(case.url)
    node_url = case.node_url or case.url
    with (
        serve(settings, FakeModels()) as front,
        nodes(tmp_path, settings.data_dir, node_url, **case.surroundings) as start,
    ):
        shared = Shared(front.http, db, settings.data_dir)
        node = start("node")
        node.plan.hold.touch()
        rested = shared.submit()
        trained = front.http.post("/train-jobs", json={"dataset": TRAINED, "epochs": 2}).json()
        trained["job_id"] = trained["id"]
        dropped = shared.submit(name="dropped")
        wait_until(lambda: node.plan.held.exists() and shared.job(trained).status == "running")
        with case.outage(node):
            node.plan.hold.unlink()
        for read, wish in ((rested, "pause"), (dropped, "cancel")):
            wait_until(partial(is_accepted, front, f"/jobs/{read['job_id']}/{wish}"))
        wait_until(lambda: shared.job(rested).status == "paused")
        assert front.http.post(f"/jobs/{rested['job_id']}/resume").status_code == 200
        assert shared.end(dropped).status == "cancelled"
        for read in (rested, trained):
            job = shared.end(read)
            assert (job.status, job.attempts, job.error) == ("succeeded", 1, None)
        files = shared.files()
        assert files == shared.rows()
        assert sum(path.startswith("datasets/shared/") for path in files) == NUM_IMAGES
        assert sum(path.startswith("datasets/trained/") for path in files) == NUM_TRAINED
    db.close()
