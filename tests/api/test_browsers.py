"""Hosts, origins and headers: what a browser may do with a node, asked by a client that says what browsers say."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from app.api.serving.browsers import SAFE_HEADERS
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.uploads import CLASSES, create_empty, picture
from testing.wire import connect
from tests.api.conftest import Serve

APP, EVIL = "https://app.example", "https://evil.example"
CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}
JOB = {"prompt": "a fox", "num_inference_steps": 1}
ASYNC = {"Prefer": "respond-async"}

Start = Callable[..., Node]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Start]:
    """Serves nodes with settings of a test's own, until the module ends."""
    with ExitStack() as nodes:

        def start(**changes: object) -> Node:
            folder = tmp_path_factory.mktemp("node")
            shutil.copyfile(sqlite_template, folder / "foxhound.db")
            settings = make_settings(folder / "data", f"sqlite:///{folder / 'foxhound.db'}", **changes)
            return nodes.enter_context(serve(settings, FakeModels()))

        yield start


@pytest.fixture(scope="module")
def closed(start: Start) -> httpx.Client:
    """A node with the defaults."""
    return start().http


@pytest.fixture(scope="module")
def shared(start: Start) -> httpx.Client:
    """A node that one origin may call, on every interface, with a name."""
    settings = {"cors_origins": f"{APP}, http://localhost:5173", "allowed_hosts": "fox.example", "host": "0.0.0.0"}
    settings["allow_anonymous"] = "true"
    return start(**settings).http


@pytest.fixture(scope="module")
def public(start: Start) -> httpx.Client:
    """A node that every page may call."""
    return start(cors_origins="*").http


def own_origin(http: httpx.Client) -> str:
    return f"http://127.0.0.1:{http.base_url.port}"


def assert_refused(answer: httpx.Response, status: int = 403, code: str = "cross_site_refused") -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.json()["detail"].endswith(".")


# Hosts.


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:8000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8000"])
def test_a_node_on_loopback_answers_under_every_loopback_name(closed: httpx.Client, host: str) -> None:
    assert closed.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "foxhound", "10.0.0.5"]
)
@pytest.mark.parametrize("path", ["/jobs", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/nowhere"])
def test_under_a_foreign_host_nothing_is_read(closed: httpx.Client, host: str, path: str) -> None:
    assert_refused(closed.get(path, headers={"Host": host}), 421, "host_not_allowed")


def test_under_a_foreign_host_nothing_is_changed(closed: httpx.Client) -> None:
    # Rebound, a page of another site is of the same origin: only the host tells.
    rebound = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}
    assert_refused(closed.post("/generate", json=JOB, headers={**rebound, **ASYNC}), 421, "host_not_allowed")
    assert closed.get("/jobs").json()["items"] == []


def test_probes_may_use_any_address_and_no_foreign_name(closed: httpx.Client) -> None:
    for path in ("/livez", "/readyz"):
        for host in ("10.0.0.5:8000", "[2001:db8::1]"):
            assert closed.get(path, headers={"Host": host}).status_code == 200
        assert_refused(closed.get(path, headers={"Host": "evil.example"}), 421, "host_not_allowed")


def test_a_node_on_the_network_answers_under_addresses_and_service_names(shared: httpx.Client) -> None:
    for host in ("foxhound:8000", "10.0.0.5", "fox.example", "FOX.example.:443", "localhost"):
        assert shared.get("/jobs", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "a.fox.example"):
        assert_refused(shared.get("/jobs", headers={"Host": host}), 421, "host_not_allowed")


def test_a_request_has_exactly_one_host(served: Serve) -> None:
    twice = "Host: localhost\r\nHost: localhost\r\n"
    with served() as node:
        for fields in ("", twice, "Host:\r\n", "Host: a b\r\n", "Host: localhost/x\r\n"):
            with connect(node.http) as wire:
                assert wire.send(f"GET /livez HTTP/1.1\r\n{fields}\r\n".encode())
                answer = wire.read()
                assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
                assert SAFE_HEADERS.items() <= answer.headers.items()
        with connect(node.http) as wire:  # as old probes ask
            assert wire.send(b"GET /livez HTTP/1.0\r\n\r\n")
            assert wire.read().status == 200


# Requests of other sites.

REFUSED = {
    "another site": {"Origin": EVIL, **CROSS_SITE},
    "another port": {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    "a sandboxed frame": {"Origin": "null", **CROSS_SITE},
    "no origin": CROSS_SITE,
    "an old browser": {"Origin": EVIL},
    "an old browser's sandboxed frame": {"Origin": "null"},
    "an old browser, another scheme": {"Origin": "https://localhost"},
    "an unknown word": {"Sec-Fetch-Site": "other"},
    "a look-alike": {"Origin": "http://localhost.evil.example"},
}


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_a_page_of_another_origin_changes_nothing(closed: httpx.Client, headers: dict[str, str]) -> None:
    job = closed.post("/generate", json=JOB, headers=ASYNC).json()
    dataset = create_empty(closed, name=f"set-{job['id']}")
    form = {"class_name": CLASSES[0], "split": "train"}
    file = ("a.png", picture(1), "image/png")
    before = closed.get("/jobs").json(), closed.get(f"/datasets/{dataset['id']}").json()
    # What needs no preflight: forms, text, no body at all; then what does.
    assert_refused(closed.post(f"/jobs/{job['id']}/cancel", headers=headers))
    assert_refused(closed.post("/classify", files={"image": file}, headers=headers))
    assert_refused(closed.post(f"/datasets/{dataset['id']}/images", data=form, files={"files": file}, headers=headers))
    assert_refused(closed.post("/generate", content=b"{}", headers={**headers, "Content-Type": "text/plain"}))
    assert_refused(closed.post("/generate", json=JOB, headers={**headers, **ASYNC}))
    assert_refused(closed.delete(f"/datasets/{dataset['id']}", headers=headers))
    for method in ("PUT", "PATCH", "PROPFIND"):
        assert_refused(closed.request(method, "/jobs", headers=headers))
    assert (closed.get("/jobs").json(), closed.get(f"/datasets/{dataset['id']}").json()) == before


def test_a_refusal_does_not_wait_for_the_body(served: Serve) -> None:
    head = (
        f"POST /classify HTTP/1.1\r\nHost: localhost\r\nOrigin: {EVIL}\r\nContent-Type: multipart/form-data; boundary=b"
    )
    with served() as node, connect(node.http) as wire:
        assert wire.send(f"{head}\r\nContent-Length: 100000000\r\n\r\n".encode())
        assert wire.read().status == 403


def test_the_nodes_own_pages_and_other_clients_pass(closed: httpx.Client) -> None:
    own = own_origin(closed)
    for headers in (
        {},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": own},
        {"Origin": "http://localhost", "Host": "localhost:80"},
        {"Origin": "http://[::1]:8000", "Host": "[0::1]:8000"},
        {"Origin": "https://localhost", "Host": "localhost", "X-Forwarded-Proto": "https"},  # a proxy on this machine
    ):
        assert closed.post("/generate", json=JOB, headers={**headers, **ASYNC}).status_code == 202, headers


def test_a_page_of_another_origin_may_ask_but_not_read(closed: httpx.Client) -> None:
    answer = closed.get("/jobs", headers={"Origin": EVIL, **CROSS_SITE})
    assert answer.status_code == 200  # the browser keeps it from the page
    assert not any(name.startswith("access-control-") for name in answer.headers)
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


# CORS.


@pytest.mark.parametrize("origin", [APP, "http://localhost:5173"])
def test_a_listed_origin_may_read_and_write(shared: httpx.Client, origin: str) -> None:
    headers = {"Origin": origin, **CROSS_SITE}
    accepted = shared.post("/generate", json=JOB, headers={**headers, **ASYNC})
    assert accepted.status_code == 202
    assert shared.post(f"{accepted.headers['location']}/cancel", headers=headers).status_code == 200
    image = shared.post("/generate", json=JOB, headers={**headers, "Accept": "image/png"})
    for answer in (accepted, image, shared.get("/jobs", headers=headers)):
        assert answer.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in answer.headers
        assert "Origin" in answer.headers["vary"]
        exposed = {name.lower() for name in answer.headers["access-control-expose-headers"].split(", ")}
        assert {"location", "retry-after", "x-request-id", "etag", "ratelimit", "content-disposition"} <= exposed
    assert {"x-foxhound-seed", "x-foxhound-image-id", "content-location", "content-disposition"} <= exposed
    assert {name for name in image.headers if name.startswith("x-foxhound")} <= exposed


@pytest.mark.parametrize(
    "origin", [EVIL, "null", "https://app.example:444", "http://app.example", "https://app.example.evil.example"]
)
def test_an_origin_that_is_not_listed_may_not(shared: httpx.Client, origin: str) -> None:
    headers = {"Origin": origin, **CROSS_SITE}
    refused = shared.post("/generate", json=JOB, headers=headers)
    assert_refused(refused)
    for answer in (refused, shared.get("/jobs", headers=headers)):
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


def test_answers_to_others_vary_by_origin_too(shared: httpx.Client, closed: httpx.Client) -> None:
    image = shared.post("/generate", json=JOB).json()["images"][0]["url"]
    for headers in ({}, {"If-None-Match": "*"}):
        assert "Origin" in shared.get(image, headers=headers).headers["vary"].split(", ")
    assert closed.get("/jobs").headers["vary"] == "Accept-Encoding"


def test_every_origin_may_read_and_write_where_all_are_listed(public: httpx.Client) -> None:
    for origin in (EVIL, "null"):
        headers = {"Origin": origin, **CROSS_SITE}
        answer = public.post("/generate", json=JOB, headers={**headers, **ASYNC})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, "*")
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert_refused(public.get("/jobs", headers={"Host": "evil.example"}), 421, "host_not_allowed")


def preflight(http: httpx.Client, path: str = "/generate", origin: str = APP, **headers: str) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked |= {f"Access-Control-{name.replace('_', '-')}": value for name, value in headers.items()}
    return http.options(path, headers=asked)


def test_a_preflight_is_answered_on_every_path(shared: httpx.Client) -> None:
    names = "authorization,x-api-key,content-type,idempotency-key,prefer,last-event-id,if-none-match,range,accept"
    for path in ("/generate", "/jobs/1/cancel", "/nowhere", "/docs", "/livez"):
        answer = preflight(shared, path, Request_Headers=names, Request_Private_Network="true")
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == APP
        assert "x-request-id" in answer.headers
        assert "DELETE" in answer.headers["access-control-allow-methods"]
        assert set(names.split(",")) <= set(answer.headers["access-control-allow-headers"].lower().split(", "))
        assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    "asked", [{"origin": EVIL}, {"origin": "null"}, {"Request_Method": "TRACE"}, {"Request_Headers": "x-other"}]
)
def test_a_preflight_for_what_is_not_allowed_is_refused(shared: httpx.Client, asked: dict[str, str]) -> None:
    answer = preflight(shared, **asked)
    assert_refused(answer)
    assert ("access-control-allow-origin" in answer.headers) == ("origin" not in asked)


def test_an_options_request_that_is_no_preflight_is_405(shared: httpx.Client, closed: httpx.Client) -> None:
    assert shared.options("/generate", headers={"Origin": APP}).status_code == 405
    assert preflight(closed).status_code == 405


def test_errors_of_every_layer_can_be_read(shared: httpx.Client) -> None:
    headers, json_body = {"Origin": APP}, {"Content-Type": "application/json"}
    answers = {
        400: shared.post("/generate", content=b"{", headers={**headers, **json_body}),
        404: shared.get("/nowhere", headers=headers),
        405: shared.put("/generate", headers=headers),
        413: shared.post(
            "/train-jobs", content=b" " * 3_000_000, headers={**headers, "Content-Type": "application/json"}
        ),
        415: shared.post("/generate", content=b"x", headers={**headers, "Content-Encoding": "gzip"}),
        421: shared.get("/jobs", headers={**headers, "Host": "evil.example"}),
        422: shared.post("/generate", json={}, headers=headers),
    }
    for status, answer in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.headers["access-control-allow-origin"] == APP


# Headers of every answer.


def test_every_answer_has_the_safe_headers(closed: httpx.Client) -> None:
    image = closed.post("/generate", json=JOB).json()["images"][0]["url"]
    answers = [closed.get(path) for path in (image, "/livez", "/nowhere", "/docs", "/openapi.json", "/capabilities")]
    answers += [closed.get("/docs/assets/docs.js"), closed.post("/generate", content=b"{"), closed.options("/jobs")]
    answers += [closed.get("/jobs", headers={"Host": "evil.example"}), closed.head("/docs/assets/favicon.png")]
    for answer in answers:
        missing = {name for name in SAFE_HEADERS if name not in answer.headers}
        assert missing == set(), answer.url
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        for name in SAFE_HEADERS.keys() - {"content-security-policy"}:
            assert answer.headers[name] == SAFE_HEADERS[name]


def test_the_documentation_page_has_no_script_inside(closed: httpx.Client) -> None:
    page = closed.get("/docs")
    assert page.text.count("<script src=") == page.text.count("<script")
    assert "<style" not in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert closed.get("/docs/assets/docs.js").headers["content-type"].startswith("text/javascript")


def test_a_file_of_a_client_is_never_a_page(closed: httpx.Client) -> None:
    dataset = create_empty(closed, name="hostile")
    data = picture(9) + b"<html><script>alert(1)</script></html>"
    form = {"class_name": CLASSES[0], "split": "train"}
    sent = {"files": ("page.html", data, "text/html")}
    taken = closed.post(f"/datasets/{dataset['id']}/images", data=form, files=sent).json()["files"][0]
    answer = closed.get(f"/images/{taken['image_id']}", headers={"Accept": "text/html"})
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("inline; filename=")
    assert "page.html" not in answer.headers["content-disposition"]
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    archive = closed.get(f"/datasets/{dataset['id']}/archive.zip")
    assert archive.headers["content-disposition"].startswith("attachment; ")


def test_no_get_changes_a_record(start: Start) -> None:
    node = start()
    http = node.http
    dataset = create_empty(http)
    form, file = {"class_name": CLASSES[0], "split": "train"}, ("a.png", picture(3), "image/png")
    uploaded = http.post(f"/datasets/{dataset['id']}/images", data=form, files={"files": file}).json()
    job = http.post("/generate", json=JOB, headers=ASYNC).json()
    generation = http.post("/generate", json=JOB).json()
    ids = {
        "dataset_id": dataset["id"],
        "job_id": job["id"],
        "image_id": uploaded["files"][0]["image_id"],
        "generation_id": generation["id"],
        "index": "0",
        "split": "train",
        "code": "not_found",
        "key_id": "none",
    }
    paths = http.get("/openapi.json").json()["paths"]
    # No model is trained here, and the events of a job that waits have no end.
    asked = [
        path for path, methods in paths.items() if "get" in methods and "model" not in path and "events" not in path
    ]
    before = contents(node)
    statuses = {path: http.get(path.format_map({**ids, "picture": "accuracy"})).status_code for path in asked}
    assert contents(node) == before
    assert {path for path, status in statuses.items() if status != 200} <= {
        "/train-jobs/{job_id}",
        "/train-jobs/{job_id}/report",
        "/train-jobs/{job_id}/report/{picture}.png",
        "/keys/{key_id}",
    }
    assert len(asked) > 20


def contents(node: Node) -> tuple[list[str], list[str]]:
    """All rows of the database, and the files of the data folder; but for features, which reports keep as a cache."""
    with closing(sqlite3.connect(node.settings.resolved_database_url.removeprefix("sqlite:///"))) as connection:
        rows = list(connection.iterdump())
    data, cache = node.settings.data_dir, node.settings.data_dir / "features"
    return rows, sorted(str(path) for path in data.rglob("*") if path != cache and cache not in path.parents)
