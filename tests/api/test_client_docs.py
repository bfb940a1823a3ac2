"""The examples of docs/client.md and docs/cli.md run as they stand, with models that answer at once."""

import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.main import app
from app.db.models import Dataset, Job
from app.db.session import Database
from app.jobs import record
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def node(tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node that the examples reach without a URL, on SQLite; the current folder is empty."""
    database = tmp_path / "foxhound.db"
    database.write_bytes(sqlite_template.read_bytes())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serve(make_settings(tmp_path / "data", f"sqlite:///{database}"), FakeModels()) as served:
        monkeypatch.setenv("FOXHOUND_URL", str(served.http.base_url))
        yield served


@contextmanager
def jobs_end(node: Node) -> Iterator[None]:
    """End each queued job soon, as if a worker did it."""
    is_over = threading.Event()
    db = Database(node.settings.resolved_database_url)

    def on_end(session: Session, job: Job) -> None:
        session.get_one(Dataset, job.spec["dataset_id"]).status = "ready"

    def work() -> None:
        while not is_over.wait(0.05):
            with db.transaction() as session:
                for job in session.query(Job).filter_by(status="queued"):
                    record.begin(session, job.id)
                    record.finish(session, job.id, on_end, completed=True, result={"dataset_id": "d"})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        db.close()


def test_the_examples_of_the_python_client_run(node: Node) -> None:
    """All but the section on training, whose end needs a worker; tests/e2e trains."""
    text = re.sub(r"## Training.*?(?=## Jobs)", "", (DOCS / "client.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) == 5
    scope: dict[str, object] = {}
    try:
        with jobs_end(node):
            for block in blocks:
                exec(compile(block, "client.md", "exec"), scope)  # noqa: S102
    finally:
        scope["fox"].close()  # type: ignore[attr-defined]
    assert Path("fox-or-dog.zip").exists()


def test_the_examples_of_the_command_line_run(node: Node) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", (DOCS / "cli.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        result = CliRunner().invoke(app, arguments)
        assert (program, result.exit_code) == ("foxhound", 0), result.output
    assert Path("fox.png").exists()


def test_the_options_of_the_longer_session_exist() -> None:
    """Its commands need a worker; their options are asked for by `--help`."""
    (block,) = re.findall(r"```sh session\n(.*?)```", (DOCS / "cli.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in block.splitlines():
        _, *arguments = shlex.split(line)
        path = arguments[:2] if arguments[0] in ("dataset", "models") else arguments[:1]
        told = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*path, "--help"])
        assert told.exit_code == 0
        assert [word for word in arguments if word.startswith("--") and word not in told.output] == []
