"""API keys over HTTP: what each route asks for, what is refused, and that the log has no key."""

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.access.caller import Scope
from app.access.keys import NewKey, list_keys, revoke_key
from app.api.access.scopes import JOB_SCOPES, NEEDS
from app.db.base import new_id
from app.db.models import Job
from app.db.session import Database
from testing.api_keys import client_of, new_key
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.waiting import PATIENCE_S, wait_until

GENERATE = {"prompt": "a fox", "num_inference_steps": 1}


@pytest.fixture
def keys(database_url: str) -> dict[Scope, NewKey]:
    """A key of each scope."""
    return {scope: new_key(database_url, f"only-{scope}", scope) for scope in Scope}


@pytest.fixture
def guarded(keys: dict[Scope, NewKey], tmp_path: Path, database_url: str) -> Iterator[Node]:
    """A node with keys; its own client has none."""
    with serve(make_settings(tmp_path / "data", database_url), FakeModels()) as node:
        yield node


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: "0" if match[1] == "index" else new_id(), path)


def code(answer: httpx.Response) -> str:
    if answer.status_code < 400:
        return ""
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])


def test_every_route_asks_for_its_scope_and_for_no_other(guarded: Node, keys: dict[Scope, NewKey]) -> None:
    with httpx.Client(base_url=guarded.http.base_url, timeout=PATIENCE_S) as http:
        for (method, path), need in NEEDS.items():
            for scope, key in keys.items():
                answer = http.request(method, filled(path), headers={"Authorization": f"Bearer {key.key}"})
                is_enough = not need or scope in need or scope is Scope.ADMIN
                assert (answer.status_code == 403) is not is_enough, (method, path, scope)
                assert answer.status_code != 401, (method, path, scope)
                if not is_enough:
                    problem = answer.json()
                    assert (problem["code"], problem["scope"]) == ("scope_missing", " or ".join(sorted(need)))
                    assert all(name in problem["detail"] for name in need)
            answer = http.request(method, filled(path))
            assert (answer.status_code == 401) is bool(need), (method, path)
            if need:
                assert (code(answer), answer.headers["www-authenticate"]) == ("key_required", "Bearer")


def test_keys_work_in_both_headers_and_every_answer_has_an_id(guarded: Node, keys: dict[Scope, NewKey]) -> None:
    key = keys[Scope.READ].key
    for headers in ({"Authorization": f"Bearer {key}"}, {"X-API-Key": key}, {"authorization": f"bearer {key}"}):
        assert guarded.http.get("/datasets", headers=headers).status_code == 200
        assert guarded.http.head("/images", headers=headers).status_code == 200
    refused = guarded.http.get("/datasets", headers={"X-Request-Id": "mine"})
    assert refused.headers["x-request-id"] == refused.json()["request_id"] == "mine"


def test_wrong_keys_get_one_answer_whatever_is_wrong(
    guarded: Node, keys: dict[Scope, NewKey], database_url: str
) -> None:
    gone = new_key(database_url, "gone")
    db = Database(database_url)
    revoke_key(db, "gone")
    db.close()
    key = keys[Scope.READ].key
    sent = [
        {"Authorization": f"Bearer {gone.key}"},
        {"Authorization": f"Bearer fxh_{'0' * 8}_{'a' * 32}"},
        {"Authorization": f"Bearer {key[:-1]}"},
        {"Authorization": "Bearer"},
        {"Authorization": key},
        {"Authorization": f"Bearer {key}", "X-API-Key": gone.key},
        {"X-API-Key": key.upper()},
        {"X-API-Key": "\u00e9\u00e8".encode("latin-1")},
        {"X-API-Key": b"\xf0\x9f\xa6\x8a"},
        {"X-API-Key": "a" * 30_000},
    ]
    answers = [guarded.http.get("/datasets", headers=headers) for headers in sent]  # type: ignore[arg-type]
    assert {(answer.status_code, code(answer), answer.json()["detail"]) for answer in answers} == {
        (401, "key_invalid", answers[0].json()["detail"])
    }
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}
    assert not any(key in answer.text for answer in answers)


def test_a_header_of_300_kilobytes_is_refused_as_every_large_head(guarded: Node) -> None:
    with httpx.Client(base_url=guarded.http.base_url, timeout=PATIENCE_S) as http:
        assert http.get("/datasets", headers={"X-API-Key": "a" * 300_000}).status_code == 431
    assert guarded.http.get("/livez").status_code == 200


def test_paths_and_methods_that_do_not_exist_tell_nothing_without_a_key(
    guarded: Node, keys: dict[Scope, NewKey]
) -> None:
    headers = {"X-API-Key": keys[Scope.GENERATE].key}
    for path in ("/livez", "/docs/errors/image_not_found"):
        assert guarded.http.request("TRACE", path).status_code == 405
    for method, path, expected in (("GET", "/nothing", 404), ("PUT", "/datasets", 405), ("GET", "/livez/", 404)):
        assert guarded.http.request(method, path).status_code == 401
        assert guarded.http.request(method, path, headers=headers).status_code == expected


def test_a_body_without_a_key_is_not_read(guarded: Node) -> None:
    """The head alone is sent; a node that waited for the body would not answer."""
    url = guarded.http.base_url
    with socket.create_connection((url.host, url.port), timeout=PATIENCE_S) as sock:
        sock.sendall(b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n\r\n")
        answer = b""
        while block := sock.recv(65_536):  # the node closes, as nothing reads the rest
            answer += block
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"connection: close" in answer.lower()


def test_a_job_is_controlled_with_the_scope_of_its_kind(
    guarded: Node, keys: dict[Scope, NewKey], database_url: str
) -> None:
    db, ids = Database(database_url), {kind: new_id() for kind in JOB_SCOPES}
    asynchronous = {"Prefer": "respond-async", "X-API-Key": keys[Scope.GENERATE].key}
    generate = guarded.http.post("/generate", json=GENERATE, headers=asynchronous).json()["spec"]
    others = {"dataset_id": new_id(), "model_id": new_id(), "split": "test"}
    with db.transaction() as session:
        for kind, job_id in ids.items():
            spec = generate if kind == "generate" else others
            session.add(Job(id=job_id, kind=kind, status="succeeded", spec=spec, progress_unit="steps"))
    db.close()
    for kind, job_id in ids.items():
        for scope in (Scope.GENERATE, Scope.DATASETS, Scope.TRAIN, Scope.ADMIN):
            for action in ("cancel", "pause", "resume"):
                path, headers = f"/jobs/{job_id}/{action}", {"X-API-Key": keys[scope].key}
                answer = guarded.http.post(path, headers=headers)
                is_enough = scope in (JOB_SCOPES[kind], Scope.ADMIN)
                assert answer.status_code == (200 if is_enough else 403), (kind, scope)
                assert is_enough or answer.json()["scope"] == JOB_SCOPES[kind]


def test_the_first_key_closes_an_open_node_and_a_new_key_works_at_once(node: Node, database_url: str) -> None:
    assert node.http.get("/datasets", headers={"X-API-Key": "anything"}).status_code == 200
    key = new_key(database_url, "first", Scope.READ)
    wait_until(lambda: node.http.get("/datasets").status_code == 401)
    assert node.http.get("/datasets", headers={"X-API-Key": key.key}).status_code == 200
    assert node.http.post("/generate", json=GENERATE, headers={"X-API-Key": key.key}).status_code == 403
    later = new_key(database_url, "later", Scope.GENERATE)
    assert node.http.post("/generate", json=GENERATE, headers={"X-API-Key": later.key}).status_code == 200


def test_anybody_is_let_in_where_that_is_set(tmp_path: Path, database_url: str) -> None:
    key = new_key(database_url, "alice", Scope.ADMIN)
    settings = make_settings(tmp_path / "data", database_url, allow_anonymous=True)
    with serve(settings, FakeModels()) as node:
        assert node.http.post("/generate", json=GENERATE).status_code == 200
        refused = node.http.get("/metrics")
        assert (refused.status_code, code(refused)) == (401, "key_required")
        assert "admin" in refused.json()["detail"]
        assert node.http.get("/metrics", headers={"X-API-Key": key.key}).status_code != 401
        assert code(node.http.get("/datasets", headers={"X-API-Key": key.key[:-1]})) == "key_invalid"


def test_a_key_revoked_on_one_node_is_refused_by_another(tmp_path: Path, database_url: str) -> None:
    key = new_key(database_url, "alice", Scope.READ)
    headers = {"X-API-Key": key.key}
    common = {"data_dir": tmp_path / "data", "database_url": database_url}
    first, second = (make_settings(**common, run_dir=tmp_path / name) for name in ("one", "two"))  # type: ignore[arg-type]
    with serve(first, FakeModels()) as one, serve(second, FakeModels()) as two:
        assert [node.http.get("/datasets", headers=headers).status_code for node in (one, two)] == [200, 200]
        db = Database(database_url)
        revoke_key(db, "alice")
        wait_until(
            lambda: all(node.http.get("/datasets", headers=headers).status_code == 401 for node in (one, two)), 5.0
        )
        used = [record.last_used_on for record in list_keys(db)]
        db.close()
    assert used != [None]


def test_objects_remember_their_key(guarded: Node, keys: dict[Scope, NewKey], database_url: str) -> None:
    key = keys[Scope.ADMIN]
    with client_of(guarded, key.key) as http:
        http.post("/generate", json=GENERATE).raise_for_status()
        classes = [{"name": name, "prompts": [name]} for name in ("fox", "dog")]
        dataset = {"name": "a", "classes": classes, "train_per_class": 1, "test_per_class": 0}
        http.post("/datasets", json=dataset).raise_for_status()
        job = http.post("/train-jobs", json={"dataset": {**dataset, "name": "b"}}).raise_for_status().json()
        http.post(f"/train-jobs/{job['id']}/cancel").raise_for_status()
        http.post(f"/jobs/{job['id']}/retry").raise_for_status()
    db = Database(database_url)
    with db.snapshot() as session:
        for table, num in (("generations", 1), ("datasets", 2), ("jobs", 3)):
            rows = session.connection().exec_driver_sql(f"SELECT key_id FROM {table}").scalars().all()
            assert rows == [key.id] * num, table
    db.close()


def test_no_log_line_has_a_key(guarded: Node, keys: dict[Scope, NewKey], caplog: pytest.LogCaptureFixture) -> None:
    secret = keys[Scope.READ].key[13:]
    with caplog.at_level(logging.DEBUG):
        for value in (keys[Scope.READ].key, keys[Scope.READ].key + "x", f"x{keys[Scope.READ].key}"):
            for headers in ({"X-API-Key": value}, {"Authorization": f"Bearer {value}"}, {"Authorization": value}):
                guarded.http.get("/datasets", headers=headers)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio"))]
    assert any("/datasets 401" in record.getMessage() for record in ours)
    assert not any(secret in record.getMessage() for record in ours)
