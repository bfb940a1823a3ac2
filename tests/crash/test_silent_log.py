"""What users write never reaches a node's log, whatever fails: here the database refuses what is to be recorded."""

import logging
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.session import Database
from testing.fake_models import FakeModels
from testing.node import make_settings, serve
from testing.node_process import nodes
from testing.pictures import wait_for_end

MARKER = "a fox of Mrs. Secretary"
KEY = "key-of-mrs-secretary"


def refuse_generations(db: Database, url: str) -> None:
    """Let every record of a generation fail, as a wrong migration would; Postgres quotes the whole row."""
    refusal = (
        "CREATE TRIGGER refusal BEFORE INSERT ON generations BEGIN SELECT RAISE(ABORT, 'refused'); END"
        if url.startswith("sqlite")
        else "ALTER TABLE generations ADD CONSTRAINT refusal CHECK (pack = 'refused')"
    )
    with db.transaction() as session:
        session.execute(text(refusal))


def test_a_failing_statement_leaves_no_prompt_in_the_log(
    database_url: str, db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refuse_generations(db, database_url)
    settings = make_settings(tmp_path / "data", database_url, run_dir=tmp_path / "front")
    with serve(settings, FakeModels()) as front, nodes(tmp_path, settings.data_dir, database_url) as start:
        body = {"prompt": MARKER, "num_inference_steps": 1}
        assert front.http.post("/generate", json=body).status_code == 500
        node = start("node")
        headers = {"Prefer": "respond-async", "Idempotency-Key": KEY}
        accepted = front.http.post("/generate", json=body, headers=headers)
        assert accepted.status_code == 202
        assert wait_for_end(db, accepted.json()["id"]).status == "failed"
        logs = caplog.text + node.log()
    assert "IntegrityError" in caplog.text  # both have told what went wrong
    assert "IntegrityError" in node.log()
    for secret in (MARKER, KEY):
        assert secret not in logs
