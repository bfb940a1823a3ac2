"""What the command line shows."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from app.cli.console import progress_text
from app.cli.main import app
from app.cli.settings import read_settings
from app.modelpacks import pack as packs
from app.node.supervisor import EXIT_CONFIG
from foxhound_client.models import JobRead
from foxhound_client.once import key_of
from testing.answers import PROGRESS, a_job
from testing.tiny import MANIFEST

QUALITY = {
    "generated": {"clip_class_accuracy": 0.968, "classifier_top1": 0.98},
    "held_out_drawings": {"vae_psnr_db": {"overall": 28.44}},
}


@pytest.fixture
def demo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packs, "demo_pack_folder", lambda: tmp_path)
    monkeypatch.setenv("FOXHOUND_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


@pytest.mark.parametrize(
    ("quality", "line"),
    [(QUALITY, "demo as measured: CLIP class 97 %, ResNet18 98 %, VAE 28.4 dB\n"), ({}, None)],
)
def test_the_list_of_models_sums_up_what_was_measured(demo_folder: Path, quality: object, line: str | None) -> None:
    files = [{"path": "clip/a", "sha256": "0" * 64, "size": 45_300_000}]
    (demo_folder / "manifest.json").write_text(
        json.dumps({**MANIFEST, "name": "demo", "files": files, "quality": quality})
    )
    shown = CliRunner().invoke(app, ["models", "packs"]).output
    assert "45.3 MB" in shown
    assert ("as measured" not in shown) if line is None else (line in shown)
    (row, _) = json.loads(CliRunner().invoke(app, ["models", "packs", "--json"]).output)
    assert (row["bytes"], row["files"], row["quality"], row["made"]) == (45_300_000, 1, quality, {})


@pytest.mark.parametrize(
    ("done", "rate", "line"),
    [
        (0, None, "0 of 1000 images"),
        (500, 1_000.0, "500 of 1000 images, 1000.0 a minute, < 2 min left"),
        (500, 10.0, "500 of 1000 images, 10.0 a minute, 50 min left"),
        (0, 1.0, "0 of 1000 images, 1.0 a minute, 16.7 h left"),
        (1_200, 1.0, "1200 of 1000 images, 1.0 a minute, < 2 min left"),
    ],
)
def test_a_jobs_progress_in_words(done: int, rate: float | None, line: str) -> None:
    progress = {**PROGRESS, "done": done, "total": 1_000, "rate_per_minute": rate}
    job: JobRead = TypeAdapter(JobRead).validate_python(a_job(1, 0, progress=progress))
    assert progress_text(job) == line


def test_the_key_of_a_dataset_follows_from_its_request_and_its_service() -> None:
    request = {"name": "a", "seed": 1}
    key = key_of("http://one", request)
    assert key == key_of("http://one", {"seed": 1, "name": "a"})
    others = [
        key_of("http://two", request),
        key_of("http://one", {**request, "seed": 2}),
        key_of("http://one", request, 1),
    ]
    assert len({key, *others}) == 4


def test_a_database_that_does_not_answer_is_told_in_one_sentence_and_may_be_tried_again(tmp_path: Path) -> None:
    url = "postgresql://fox:secret@127.0.0.1:1/hound"
    environment = {"FOXHOUND_DATABASE_URL": url, "FOXHOUND_DATA_DIR": str(tmp_path)}
    result = CliRunner().invoke(app, ["serve"], env=environment)
    assert result.exit_code == 1  # and not EXIT_CONFIG, over which a supervisor would give up
    assert "The database does not answer." in result.output
    assert "secret" not in result.output


def test_options_of_serve_win_over_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOXHOUND_HOST", "127.0.0.2")
    monkeypatch.setenv("FOXHOUND_PORT", "8123")
    given = [read_settings(), read_settings(host="::1", port=None), read_settings(host=None, port=0)]
    assert [(each.host, each.port) for each in given] == [("127.0.0.2", 8123), ("::1", 8123), ("127.0.0.2", 0)]


def test_the_host_of_serve_is_the_one_that_is_checked(tmp_path: Path, sqlite_template: Path) -> None:
    """A node that other machines reach needs API keys; no process starts."""
    (tmp_path / "foxhound.db").write_bytes(sqlite_template.read_bytes())
    environment = {
        "FOXHOUND_HOST": "127.0.0.1",
        "FOXHOUND_DATABASE_URL": f"sqlite:///{tmp_path / 'foxhound.db'}",
        "FOXHOUND_DATA_DIR": str(tmp_path / "data"),
    }
    refused = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"], env=environment)
    assert (refused.exit_code, "key" in refused.output) == (EXIT_CONFIG, True), refused.output
    assert CliRunner().invoke(app, ["serve", "--port", "65536"], env=environment).exit_code == 2
