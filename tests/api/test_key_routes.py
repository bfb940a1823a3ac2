"""API keys over HTTP: created once, listed without themselves, limited and revoked; by keys with the scope admin."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.access.caller import Scope
from app.access.keys import list_keys
from app.db.session import Database
from testing.api_keys import client_of, new_key
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.waiting import wait_until

GENERATE = {"prompt": "a fox", "num_inference_steps": 1, "width": 64, "height": 64}
STEPS = 64 * 64


@pytest.fixture
def guarded(tmp_path: Path, database_url: str) -> Iterator[Node]:
    """A node with a bound of its own for every key, and a key with the scope admin."""
    settings = make_settings(tmp_path / "data", database_url, caller_concurrent_requests=50)
    with serve(settings, FakeModels()) as node:
        yield node


@pytest.fixture
def admin(guarded: Node, database_url: str) -> Iterator[httpx.Client]:
    with client_of(guarded, new_key(database_url, "admin", Scope.ADMIN).key) as http:
        wait_until(lambda: guarded.http.get("/jobs").status_code == 401)
        yield http


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_key_is_created_used_limited_and_revoked(guarded: Node, admin: httpx.Client, database_url: str) -> None:
    body = {"name": "alice", "scopes": ["read", "generate"], "expires_in_days": 90, "limits": {"stored_mb": 9}}
    made = admin.post("/keys", json=body)
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    alice = made.json()
    secret, path = alice["key"], made.headers["location"]
    assert path == f"/keys/{alice['id']}"
    assert secret.startswith(alice["prefix"])
    assert (alice["scopes"], alice["state"], alice["limits"]["stored_mb"]) == (["generate", "read"], "active", 9)
    left = datetime.fromisoformat(alice["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)

    with client_of(guarded, secret) as http:
        assert http.get("/generations").status_code == 200
        assert code(http.get("/keys")) == (403, "scope_missing")
        assert code(http.post("/keys", json=body)) == (403, "scope_missing")
        limited = admin.patch(path, json={"limits": {"pixel_steps_per_day": 2 * STEPS}})
        assert limited.status_code == 200
        assert limited.json()["limits"]["stored_mb"] is None
        applied = limited.json()["applied_limits"]
        assert (applied["pixel_steps_per_day"], applied["concurrent_requests"]) == (2 * STEPS, 50)
        wait_until(lambda: "pixel-steps" in http.post("/generate", json=GENERATE).headers.get("ratelimit-policy", ""))
    use = admin.get("/keys/alice").json()["use"]
    assert (use["pixel_steps_today"], use["stored_bytes"] > 0) == (2 * STEPS, True)

    assert admin.delete("/keys/alice").status_code == 204
    assert code(admin.delete(path)) == (404, "not_found")
    assert code(admin.get("/keys/alice")) == (404, "not_found")
    assert admin.get(path).json()["state"] == "revoked"
    with client_of(guarded, secret) as http:
        wait_until(lambda: http.get("/generations").status_code == 401)
    assert admin.post("/keys", json=body).status_code == 201  # the name is free again

    with closing(Database(database_url)) as db:
        assert secret not in repr(list_keys(db))
    shown = [admin.get(one).text for one in ("/keys", path)]
    assert not any(secret in text or secret.removeprefix(alice["prefix"]) in text for text in shown)


def test_keys_are_listed_newest_first_by_pages(admin: httpx.Client) -> None:
    for number in range(4):
        assert admin.post("/keys", json={"name": f"k{number}", "scopes": ["read"]}).status_code == 201
    first = admin.get("/keys", params={"limit": 3}).json()
    rest = admin.get("/keys", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    names = [key["name"] for page in (first, rest) for key in page["items"]]
    assert (names, first["total"]) == (["k3", "k2", "k1", "k0", "admin"], 5)
    assert all("key" not in key and "key_sha256" not in key for key in first["items"])


def test_the_last_key_with_the_scope_admin_stays(admin: httpx.Client, database_url: str) -> None:
    assert code(admin.delete("/keys/admin")) == (409, "last_admin_key")
    assert admin.post("/keys", json={"name": "second", "scopes": ["admin"]}).status_code == 201
    assert admin.delete("/keys/admin").status_code == 204  # one's own too, as another is left
    with closing(Database(database_url)) as db:
        assert [record.name for record in list_keys(db) if record.revoked_at is None] == ["second"]


def test_a_node_without_keys_is_pointed_to_the_command_line(http: httpx.Client) -> None:
    assert http.get("/keys").json()["items"] == []
    refused = http.post("/keys", json={"name": "mine", "scopes": ["admin"]})
    assert code(refused) == (403, "first_key_by_command")
    assert "foxhound keys create NAME --scope admin" in refused.json()["detail"]
    assert http.get("/keys").json()["items"] == []
    assert code(http.delete("/keys/mine")) == (404, "not_found")


WRONG: list[tuple[dict[str, object], str]] = [
    ({"name": "no spaces"}, "#/name"),
    ({"name": "-x"}, "#/name"),
    ({"scopes": []}, "#/scopes"),
    ({"scopes": ["root"]}, "#/scopes/0"),
    ({"expires_in_days": 0}, "#/expires_in_days"),
    ({"limits": {"stored_mb": -1}}, "#/limits/stored_mb"),
    ({"limits": {"requests_per_minute": 0}}, "#/limits/requests_per_minute"),
    ({"limits": {"typo": 1}}, "#/limits/typo"),
    ({"key": "fxh_mine"}, "#/key"),
]


def test_what_is_no_key_is_refused(shared_node: Node) -> None:
    for changes, pointer in WRONG:
        answer = shared_node.http.post("/keys", json={"name": "x", "scopes": ["read"], **changes})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_a_name_is_taken_once(admin: httpx.Client) -> None:
    body = {"name": "twice", "scopes": ["read"]}
    assert admin.post("/keys", json=body).status_code == 201
    assert code(admin.post("/keys", json=body)) == (409, "key_name_taken")
