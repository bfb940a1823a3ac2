"""`foxhound keys`, the refusal to serve without one, and the key that clients send."""

import json
import os
import stat
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from app.access.keys import digest_of, read_key_table
from app.cli.main import app
from app.db.base import utc_now
from app.db.session import Database
from app.node.supervisor import EXIT_CONFIG
from testing.api_keys import new_key
from testing.fake_models import FakeModels
from testing.node import make_settings, serve

ROOT = Path(__file__).parents[3]


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"FOXHOUND_DATABASE_URL": database_url, "FOXHOUND_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "200"}


@pytest.fixture
def keys(environment: dict[str, str]) -> Any:
    """Runs `foxhound keys`; returns the result."""

    def run(*words: str, **more: str) -> Result:
        result = CliRunner().invoke(app, ["keys", *words], env={**environment, **more})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def test_a_key_is_printed_once_and_works(keys: Any, db: Database) -> None:
    made = json.loads(keys("create", "alice", "--scope", "train", "--scope", "read", "--json").stdout)
    assert sorted(made) == ["id", "key", "name", "scopes"]
    assert (made["name"], made["scopes"]) == ("alice", ["read", "train"])
    plain = keys("create", "bob", "--scope", "admin").stdout.strip()
    assert {digest_of(key.encode()) for key in (made["key"], plain)} == read_key_table(db, utc_now()).usable.keys()
    listed = keys("list").output + keys("list", "--json").output
    assert made["key"] not in listed
    assert plain not in listed


def test_the_list_tells_scopes_states_and_times(keys: Any) -> None:
    keys("create", "alice", "--scope", "read", "--expires", "90d")
    keys("create", "bob", "--scope", "admin")
    assert keys("revoke", "bob").exit_code == 0
    alice, bob = json.loads(keys("list", "--json").stdout)
    assert (alice["name"], alice["scopes"], alice["revoked_at"], alice["last_used_on"]) == (
        "alice", ["read"], None, None
    )  # fmt: skip
    days = (timedelta(days=90) - timedelta(minutes=5), timedelta(days=90))
    assert (utc_now() + days[0]).isoformat() < alice["expires_at"] < (utc_now() + days[1]).isoformat()
    assert (bob["expires_at"], bob["revoked_at"] is None) == (None, False)
    rows = keys("list").stdout
    assert all(word in rows for word in ("alice", "active", "revoked", alice["prefix"]))


@pytest.mark.parametrize(
    "words",
    [
        ("create", "alice"),
        ("create", "alice", "--scope", "everything"),
        *(("create", "alice", "--scope", "read", "--expires", text) for text in ("", "0d", "3y", "-1d", "3651d", "9")),
    ],
)
def test_wrong_usage_creates_nothing(keys: Any, db: Database, words: tuple[str, ...]) -> None:
    assert keys(*words).exit_code == 2
    assert not read_key_table(db, utc_now()).has_any


def test_refusals_are_told_in_one_sentence(keys: Any) -> None:
    assert keys("create", "alice", "--scope", "read").exit_code == 0
    for words in (("create", "alice", "--scope", "read"), ("create", "a b", "--scope", "read"), ("revoke", "bob")):
        result = keys(*words)
        assert (result.exit_code, len(result.stderr.strip().splitlines())) == (1, 1)


def test_a_key_in_a_file_is_the_owners_alone_and_not_printed(keys: Any, tmp_path: Path, db: Database) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    result = keys("create", "alice", "--scope", "read", "--output", str(path))
    key = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert digest_of(key.encode()) in read_key_table(db, utc_now()).usable
    assert key not in result.output
    assert keys("create", "bob", "--scope", "read", "--output", str(tmp_path / "no" / "key")).exit_code == 1
    assert len(json.loads(keys("list", "--json").stdout)) == 1


@pytest.mark.parametrize(
    ("more", "is_created"),
    [
        ({"FOXHOUND_HOST": "0.0.0.0"}, True),
        ({"FOXHOUND_HOST": "0.0.0.0", "FOXHOUND_ALLOW_ANONYMOUS": "true"}, False),
        ({"FOXHOUND_HOST": "127.0.0.1"}, False),
    ],
)
def test_a_first_key_is_created_where_a_node_would_not_start(
    keys: Any, tmp_path: Path, more: dict[str, str], is_created: bool
) -> None:
    for name in ("one", "two"):
        words = ("create", "first", "--if-needed", "--scope", "read", "--output", str(tmp_path / name))
        assert keys(*words, **more).exit_code == 0
    assert [(tmp_path / name).exists() for name in ("one", "two")] == [is_created, False]


@pytest.mark.parametrize("command", ["serve", "api"])
def test_a_node_that_others_reach_does_not_start_without_a_key(environment: dict[str, str], command: str) -> None:
    result = CliRunner().invoke(app, [command], env={**environment, "FOXHOUND_HOST": "0.0.0.0"})
    assert result.exit_code == EXIT_CONFIG
    assert "foxhound keys create" in result.stderr
    assert "FOXHOUND_ALLOW_ANONYMOUS=true" in result.stderr


def test_a_revoked_key_keeps_the_node_closed_and_lets_it_start(
    keys: Any, environment: dict[str, str], database_url: str
) -> None:
    new_key(database_url, "alice")
    keys("revoke", "alice")
    # The device is checked after the keys, and stops this start.
    more = {"FOXHOUND_HOST": "0.0.0.0", "FOXHOUND_DEVICE": "cuda:99"}
    result = CliRunner().invoke(app, ["api"], env={**environment, **more})
    assert "CUDA device" in result.stderr
    assert "ALLOW_ANONYMOUS" not in result.stderr


def test_the_client_sends_the_key_of_its_environment(database_url: str, tmp_path: Path) -> None:
    key = new_key(database_url, "alice").key
    with serve(make_settings(tmp_path / "data", database_url), FakeModels()) as node:
        words = ["dataset", "list", "--server", str(node.http.base_url)]
        for env, status in (({"FOXHOUND_API_KEY": key}, 0), ({"FOXHOUND_API_KEY": key + "x"}, 1), ({}, 1)):
            result = CliRunner().invoke(app, words, env={"FOXHOUND_API_KEY": None, **env})
            assert result.exit_code == status, result.output
            assert key not in result.output
    assert CliRunner().invoke(app, words, env={"FOXHOUND_API_KEY": "\u00e9"}).exit_code == 2


@pytest.mark.parametrize("example", ["fox_or_dog.sh", "overnight.sh"])
@pytest.mark.parametrize("key", ["fxh_secret", None])
def test_the_examples_send_the_key_and_keep_it_out_of_arguments(tmp_path: Path, example: str, key: str | None) -> None:
    """A `curl` that writes down its arguments, and the header file among them, and refuses everything."""
    stub = tmp_path / "curl"
    stub.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$*" >> "$LOG"\n'
        'for word in "$@"; do case $word in @*/key) cat "${word#@}" >> "$LOG.key";; esac; done\n'
        'printf "{}"; exit 22\n'
    )
    stub.chmod(0o755)
    log = tmp_path / "log"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "TIMEOUT_S": "0", "PATIENCE_S": "0"}
    if key is not None:
        env["FOXHOUND_API_KEY"] = key
    subprocess.run(["sh", str(ROOT / "examples" / example)], env=env, cwd=tmp_path, capture_output=True, timeout=60)
    sent = tmp_path / "log.key"
    assert log.exists()
    assert "fxh_secret" not in log.read_text()
    assert sent.exists() is (key is not None)
    if key is not None:
        assert sent.read_text().splitlines()[0] == f"Authorization: Bearer {key}"
