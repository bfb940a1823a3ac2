"""Several nodes on one Postgres and one storage share a job's chunks; one that dies or sleeps costs nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db.session import Database
from testing.fake_models import FakeModels
from testing.node import make_settings, serve
from testing.node_process import NodeProcesses, StartNode, nodes
from testing.shared_storage import NUM_IMAGES, Shared
from testing.waiting import wait_until


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> dict[str, str]:
    """The files that one node makes when nothing happens to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    url = f"sqlite:///{folder / 'foxhound.db'}"
    (folder / "foxhound.db").write_bytes(sqlite_template.read_bytes())
    settings = make_settings(folder / "data", url, run_dir=folder / "front")
    with serve(settings, FakeModels()) as front, nodes(folder, settings.data_dir, url, step_s=0.0) as start:
        shared = Shared(front.http, Database(url), settings.data_dir)
        start("only")
        assert shared.end(shared.submit()).status == "succeeded"
        shared.db.close()
        return shared.files()


@pytest.fixture
def shared(postgres_url: str, tmp_path: Path) -> Iterator[Shared]:
    settings = make_settings(tmp_path / "data", postgres_url, run_dir=tmp_path / "front")
    with serve(settings, FakeModels()) as front:
        db = Database(postgres_url)
        yield Shared(front.http, db, settings.data_dir)
        db.close()


@pytest.fixture
def start_node(shared: Shared, postgres_url: str, tmp_path: Path) -> Iterator[StartNode]:
    with nodes(tmp_path, shared.data_dir, postgres_url) as start:
        yield start


def held(node: NodeProcesses) -> NodeProcesses:
    """Let no step of a node end until `let_go`."""
    node.plan.hold.touch()
    return node


def let_go(all_held: list[NodeProcesses]) -> None:
    """Let held nodes go on once each has a chunk: a fast one alone could have made them all before the others start."""
    for node in all_held:
        wait_until(node.plan.held.exists)
    for node in all_held:
        node.plan.hold.unlink()


def test_two_nodes_share_a_job_and_make_each_image_once(
    shared: Shared, start_node: StartNode, undisturbed: dict[str, str]
) -> None:
    both = [held(start_node("one")), held(start_node("two"))]
    read = shared.submit()
    let_go(both)
    assert shared.end(read).status == "succeeded"
    by_node = [node.rendered() for node in both]
    assert all(by_node)
    assert len(by_node[0] + by_node[1]) == len(set(by_node[0] + by_node[1])) == NUM_IMAGES
    assert shared.files() == shared.rows() == undisturbed


def test_a_node_of_three_that_dies_costs_nothing(
    shared: Shared, start_node: StartNode, undisturbed: dict[str, str]
) -> None:
    victim = held(start_node("victim"))
    read = shared.submit()
    wait_until(victim.plan.held.exists)  # it has the job, and a chunk
    others = [held(start_node("one")), held(start_node("two"))]
    let_go(others)
    wait_until(lambda: all(node.rendered() for node in others))
    victim.kill()
    job = shared.end(read)
    assert (job.status, job.progress_done, job.error) == ("succeeded", NUM_IMAGES, None)
    assert shared.files() == shared.rows() == undisturbed


@pytest.fixture
def sleeper(start_node: StartNode) -> NodeProcesses:
    """A node whose worker will be frozen over the first chunk that it takes."""
    return held(start_node("sleeper"))


def freeze(node: NodeProcesses) -> None:
    """Freeze a node's worker over a chunk, with an image that is rendered and lies before it to be written."""
    wait_until(node.plan.held.exists)
    node.stop_worker()
    node.plan.hold.unlink()
    wait_until(node.rendered)


def wake(node: NodeProcesses) -> None:
    """Let a frozen worker go on, and wait until it has found out that it was taken for dead."""
    node.wake_worker()
    node.worker.join(60)
    assert node.worker.exitcode == 0


def test_a_worker_that_wakes_up_after_its_successor_has_finished_writes_nothing(
    shared: Shared, start_node: StartNode, sleeper: NodeProcesses, undisturbed: dict[str, str]
) -> None:
    read = shared.submit()
    freeze(sleeper)
    start_node("successor")
    job = shared.end(read)
    assert job.status == "succeeded"
    before = shared.written()
    wake(sleeper)
    assert shared.written() == before
    assert shared.files() == shared.rows() == undisturbed
    assert shared.job(read).version == job.version


def test_a_worker_that_wakes_up_while_its_successor_works_leaves_it_alone(
    shared: Shared, start_node: StartNode, sleeper: NodeProcesses
) -> None:
    read = shared.submit(train_per_class=20)
    freeze(sleeper)
    (seed, *_) = sleeper.rendered()
    successor = start_node("successor", step_s=0.1)
    wait_until(lambda: any(f"-{seed}." in path for path in shared.rows()))  # made by the successor meanwhile
    successor.plan.hold.touch()
    wait_until(successor.plan.held.exists)
    before, rows = shared.written(), shared.rows()
    wake(sleeper)
    assert shared.job(read).status == "running"
    assert (shared.written(), shared.rows()) == (before, rows)
    successor.plan.hold.unlink()
    assert shared.end(read).status == "succeeded"
    assert len(successor.rendered()) == len(set(successor.rendered())) == 48  # nothing was taken from it
    assert shared.files() == shared.rows()


def test_a_worker_that_wakes_up_after_its_dataset_was_deleted_brings_nothing_back(
    shared: Shared, start_node: StartNode, sleeper: NodeProcesses
) -> None:
    read = shared.submit()
    freeze(sleeper)
    start_node("successor")
    shared.end(read)
    assert shared.http.delete(f"/datasets/{read['id']}").status_code == 204
    wake(sleeper)
    assert not (shared.data_dir / "datasets" / read["name"]).exists()
    assert shared.files() == shared.rows() == {}


def test_a_worker_that_wakes_up_after_its_job_was_cancelled_writes_nothing(
    shared: Shared, start_node: StartNode, sleeper: NodeProcesses
) -> None:
    read = shared.submit()
    freeze(sleeper)
    assert shared.http.post(f"/jobs/{read['job_id']}/cancel").status_code == 200
    start_node("successor")
    assert shared.end(read).status == "cancelled"
    wake(sleeper)
    assert shared.files() == shared.rows()


def test_a_worker_that_wakes_up_while_its_job_rests_writes_nothing(
    shared: Shared, start_node: StartNode, sleeper: NodeProcesses, undisturbed: dict[str, str]
) -> None:
    read = shared.submit()
    freeze(sleeper)
    shared.http.post(f"/jobs/{read['job_id']}/pause")
    start_node("successor")
    wait_until(lambda: shared.job(read).status == "paused")
    wake(sleeper)
    assert shared.files() == shared.rows()
    assert shared.job(read).status == "paused"
    shared.http.post(f"/jobs/{read['job_id']}/resume")
    assert shared.end(read).status == "succeeded"
    assert shared.files() == shared.rows() == undisturbed
