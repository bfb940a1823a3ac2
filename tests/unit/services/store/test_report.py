"""`foxhound storage report`: amounts by kind, and where files and records disagree."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.db.base import new_id
from app.db.models import Dataset, Image
from app.db.session import Database
from app.services.store.identity import assign_store_id
from app.services.store.report import MAX_EXAMPLES, storage_report
from app.services.store.retention import Retention
from app.storage.layout import DataFolder


def test_it_tells_amounts_strays_and_what_is_missing(
    db: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DataFolder(tmp_path / "data")
    store_id = assign_store_id(db, folder)
    kept, missing = (folder.dataset_image_path("fox", "train", "fox", k, "png") for k in range(2))
    dataset_id = new_id()
    columns = {"format": "png", "width": 1, "height": 1, "num_bytes": 4, "sha256": "", "lineage": {}, "position": 0}
    place = {"dataset_id": dataset_id, "split": "train", "class_index": 0, "decision": "rejected"}
    with db.transaction() as session:
        session.add(
            Dataset(
                id=dataset_id,
                name="fox",
                status="ready",
                seed=0,
                classes=[],
                train_per_class=1,
                test_per_class=0,
                generation={},
            )
        )
        session.flush()
        session.add_all(Image(id=new_id(), path=path, **place, **columns) for path in (kept, missing))
    strays = [f"images/ab/{k}.png" for k in range(MAX_EXAMPLES + 1)]
    for path in (
        kept,
        "models/a/model.safetensors",
        "features/a",
        "exports/a/0-b.zip",
        ".lost+found/2026-11-29/images/a.png",
        *strays,
    ):
        folder.write(path, b"1234")
    report = storage_report(db, folder, folder.root / "packs", Retention())
    assert {kind: (amount.files, amount.bytes) for kind, amount in report.kinds.items()} == {
        "images": (21, 84),
        "datasets": (1, 4),
        "rejected": (0, 0),
        "models": (1, 4),
        "finetuning": (0, 0),
        "features": (1, 4),
        "exports": (1, 4),
        "thumbnails": (0, 0),
        ".tmp": (0, 0),
        ".taken": (0, 0),
        ".reserve": (0, 0),
        "packs": (0, 0),
    }
    assert {day: amount.files for day, amount in report.lost_found.items()} == {"2026-11-29": 1}
    assert (report.unrecorded.number, len(report.unrecorded.examples)) == (22, MAX_EXAMPLES)
    assert (report.missing.number, report.missing.examples) == (1, [missing])

    monkeypatch.setenv("FOXHOUND_DATA_DIR", str(folder.root))
    monkeypatch.setenv("FOXHOUND_DATABASE_URL", database_url)
    told = json.loads(CliRunner().invoke(app, ["storage", "report", "--json"]).output)
    assert (told["store_id"], told["missing"]["number"]) == (store_id, 1)
    listed = CliRunner().invoke(app, ["storage", "report", "--list"]).output.split()
    assert set(listed) == {*strays, "models/a/model.safetensors"}
    words = CliRunner().invoke(app, ["storage", "report"]).output
    assert store_id in words
    assert "22 files without a record" in words
    assert "and 2 more" in words
