"""The client and the commands train on a node with a worker, whose models are fakes."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.db.migrations import migrate
from app.jobs.migrations import migrate_job_engine
from foxhound_client import Foxhound, FoxhoundError
from foxhound_client.requests import DatasetCreate
from testing.node_process import nodes
from testing.uploads import create_empty, fill
from testing.waiting import wait_for
from tests.e2e.conftest import free_port


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node with a worker that has the datasets `pictures` and `others`."""
    folder, port = tmp_path_factory.mktemp("trains"), free_port()
    database_url = f"sqlite:///{folder / 'foxhound.db'}"
    migrate(database_url)
    migrate_job_engine(database_url)
    with nodes(folder, folder / "data", database_url) as start:
        start("node", port=port)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            wait_for(lambda: _status(http), lambda status: status == 200)
            for name in ("pictures", "others"):
                fill(http, create_empty(http, name)["id"])
            yield str(http.base_url)


def _status(http: httpx.Client) -> int:
    try:
        return http.get("/readyz").status_code
    except httpx.TransportError:
        return 0


def foxhound(url: str, *args: str) -> str:
    result = CliRunner(env={"FOXHOUND_URL": url}).invoke(app, list(args))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_model_is_trained_once_however_often_it_is_asked_for(url: str) -> None:
    seen: list[tuple[int, int, str]] = []
    with Foxhound(url) as fox:
        dataset_id, other_id = (fox.datasets.get(name).id for name in ("pictures", "others"))
        made = fox.models.ensure(
            dataset_id=dataset_id, name="once", epochs=2, on_progress=lambda *each: seen.append(each)
        )
        assert (made.name, made.dataset_id, seen[-1][0]) == ("once", dataset_id, seen[-1][1])
        assert fox.models.ensure(dataset_id=dataset_id, name="once", epochs=2).id == made.id
        # As after a day, when the key is forgotten: the name and the dataset decide.
        late = fox.models.ensure(dataset_id=dataset_id, name="once", epochs=2, idempotency_key="new")
        assert late.id == made.id
        with pytest.raises(FoxhoundError, match="model_name_taken"):
            fox.models.ensure(dataset_id=other_id, name="once", epochs=2)
        fox.models.delete(made.id)
        assert fox.models.ensure(dataset_id=dataset_id, name="once", epochs=2).id != made.id
        assert len(list(fox.jobs.list(kind="train"))) == 2


def test_prompts_become_a_model_in_one_call(url: str) -> None:
    recipe: DatasetCreate = {
        "name": "one-call",
        "classes": [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")],
        "train_per_class": 2,
        "test_per_class": 1,
        "generation": {"num_inference_steps": 2},
    }
    with Foxhound(url) as fox:
        keys = (None, None, "after-a-day")
        ids = {fox.models.ensure(name="one-call", epochs=1, dataset=recipe, idempotency_key=key).id for key in keys}
    assert len(ids) == 1


def test_the_commands_for_models(url: str, tmp_path: Path) -> None:
    told = foxhound(url, "train", "pictures", "--name", "by-command", "--epochs", "2")
    assert "by-command" in told
    listed = json.loads(foxhound(url, "models", "list", "--json"))
    model = next(each for each in listed if each["name"] == "by-command")
    assert foxhound(url, "models", "list").count("by-command") == 1
    assert "by-command" in foxhound(url, "models", "show", "by-command")
    shown = json.loads(foxhound(url, "models", "show", model["id"], "--json"))
    assert (shown["id"], shown["dataset_id"]) == (model["id"], model["dataset_id"])

    weights, exported = tmp_path / "weights.safetensors", tmp_path / "model.zip"
    foxhound(url, "models", "weights", "by-command", "-o", str(weights))
    assert weights.stat().st_size > 0
    assert exported.name in foxhound(url, "models", "export", "by-command", "-o", str(exported))
    with zipfile.ZipFile(exported) as archive:
        assert archive.testzip() is None
        assert archive.namelist()

    told = foxhound(url, "models", "evaluate", "by-command", "others")
    assert told.splitlines()[-1].startswith("by-command on test of others: accuracy ")
    figures = json.loads(foxhound(url, "models", "evaluate", "by-command", "others", "--split", "train", "--json"))
    assert (figures["dataset_name"], figures["split"]) == ("others", "train")
    assert foxhound(url, "models", "delete", "by-command") == "by-command is deleted.\n"
    assert "by-command" not in foxhound(url, "models", "list")
