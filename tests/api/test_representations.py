"""HTTP as its standards say: HEAD, entity tags, gzip, ranges, whole numbers, waiting, ends of event streams, pages."""

import gzip
import json
import threading
import time

import httpx
import pytest

from app.api.routes.jobs import RETRY_MS
from app.api.waiting import MAX_WAIT_S
from app.error_codes import ErrorCode
from app.main import ROUTERS
from testing.node import Node

PROMPT = {"prompt": "a fox", "num_inference_steps": 1}
ASYNC = {"Prefer": "respond-async"}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def shared(shared_node: Node) -> httpx.Client:
    return shared_node.http


def raw(http: httpx.Client, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """Return an answer and the bytes of its body as they were sent."""
    with http.stream("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}) as answer:
        return answer, b"".join(answer.iter_raw())


def test_head_is_answered_wherever_get_is(shared: httpx.Client) -> None:
    image = shared.post("/generate", json=PROMPT).json()["images"][0]
    known = [image["url"], "/docs", "/openapi.json", "/docs/assets/swagger-ui.css"]
    listed = [route.path for module in ROUTERS for route in module.router.routes if route.methods == {"GET"}]
    paths = [path.replace("{split}", "train").replace("{index}", "0") for path in listed]
    for path in known + [path.replace("{", "").replace("}", "") for path in paths]:
        got, head = shared.get(path), shared.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        if path not in ("/metrics", "/jobs/job_id/events") and got.is_success:
            assert head.headers["content-type"] == got.headers["content-type"], path
            assert head.headers.get("content-length") == got.headers.get("content-length"), path
    assert shared.head("/generate").status_code == 405
    assert shared.head("/nothing").status_code == 404


def test_head_of_events_ends_at_once_and_frees_its_stream(node: Node) -> None:
    job = node.http.post("/generate", json=PROMPT, headers=ASYNC).json()
    answer = node.http.head(f"/jobs/{job['id']}/events", timeout=5)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_json_has_a_tag_that_changes_with_its_bytes(node: Node) -> None:
    http = node.http
    made = http.post("/generate", json=PROMPT).json()
    job = http.post("/generate", json=PROMPT, headers=ASYNC).json()
    single = (f"/generations/{made['id']}", f"/jobs/{job['id']}")
    for path in (*single, "/jobs", "/generations", "/datasets", "/models", "/capabilities", "/openapi.json"):
        first = http.get(path)
        tag = first.headers["etag"]
        assert (tag[:3], first.headers["cache-control"]) == ('W/"', "private, no-cache"), path
        for known in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
            again = http.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), path
            assert "content-type" not in again.headers
        assert http.get(path, headers={"If-None-Match": '"other"'}).content == first.content
        assert http.head(path, headers={"If-None-Match": tag}).status_code == 304
    before = {path: http.get(path) for path in (f"/jobs/{job['id']}", "/jobs")}
    http.post(f"/jobs/{job['id']}/cancel")
    for path, old in before.items():
        new = http.get(path, headers={"If-None-Match": old.headers["etag"]})
        assert (new.status_code, new.headers["etag"] != old.headers["etag"]) == (200, True)
    assert "etag" not in http.get("/jobs/nope", headers={"If-None-Match": "*"}).headers


@pytest.mark.parametrize(("path", "name", "most"), [("/jobs", "If-None-Match", 8_000), ("/jobs/none", "Prefer", 200)])
def test_a_header_is_as_long_as_the_contract_says(shared: httpx.Client, path: str, name: str, most: int) -> None:
    declared = shared.get("/openapi.json").json()["paths"]["/jobs" if path == "/jobs" else "/jobs/{job_id}"]["get"]
    schemas = [one["schema"]["anyOf"][0] for one in declared["parameters"] if one["name"] == name.lower()]
    assert [schema["maxLength"] for schema in schemas] == [most]
    assert shared.get(path, headers={name: "x" * most}).status_code in (200, 404)
    answer = shared.get(path, headers={name: "x" * (most + 1)})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"#header/{name.lower()}"), answer.text


def test_texts_are_sent_in_gzip_and_pictures_and_events_are_not(shared: httpx.Client) -> None:
    image = shared.post("/generate", json=PROMPT).json()["images"][0]
    for path, accept in (("/openapi.json", "*/*"), ("/docs/errors", "text/html")):
        plain, text = raw(shared, path, Accept_Encoding="identity", Accept=accept)
        packed, data = raw(shared, path, Accept_Encoding="br, gzip;q=0.5", Accept=accept)
        assert packed.headers["content-encoding"] == "gzip", path
        assert (gzip.decompress(data), "content-encoding" in plain.headers) == (text, False)
        assert int(packed.headers["content-length"]) == len(data) < len(text) / 2
        assert "Accept-Encoding" in packed.headers["vary"]
        assert "Accept-Encoding" in plain.headers["vary"]
        assert packed.headers["etag"] == plain.headers["etag"] if accept == "*/*" else True
    refused, _ = raw(shared, "/openapi.json", Accept_Encoding="gzip;q=0")
    assert "content-encoding" not in refused.headers
    small, _ = raw(shared, "/livez", Accept_Encoding="gzip")
    assert "content-encoding" not in small.headers
    picture, _ = raw(shared, image["url"], Accept_Encoding="gzip")
    assert (picture.headers.get("content-encoding"), picture.headers["etag"][:1]) == (None, '"')


@pytest.mark.parametrize("asked", ["pages=1-2", "items=0-4", "bytes", "bananas", "BYTES=0-3", "bytes=0-3"])
def test_a_range_in_an_unknown_unit_is_ignored(shared: httpx.Client, asked: str) -> None:
    url = shared.post("/generate", json=PROMPT).json()["images"][0]["url"]
    whole = shared.get(url)
    answer = shared.get(url, headers={"Range": asked})
    is_known = asked.lower().startswith("bytes=")
    assert (answer.status_code, answer.content) == ((206, whole.content[:4]) if is_known else (200, whole.content))


@pytest.mark.parametrize(
    ("text", "status"), [("64.0", 200), ("6.4e1", 200), ("64.5", 422), ("true", 422), ('"64"', 422)]
)
def test_a_whole_number_may_be_written_with_a_fraction_of_zero(shared: httpx.Client, text: str, status: int) -> None:
    body = f'{{"prompt": "a fox", "num_inference_steps": 1, "width": {text}}}'
    answer = shared.post("/generate", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    if status == 200:
        assert answer.json()["parameters"]["width"] == 64
    assert shared.get("/jobs", params={"limit": "7.0"}).status_code == 200
    assert shared.get("/jobs", params={"limit": "7.5"}).status_code == 422
    assert shared.get("/jobs", params={"limit": "true"}).status_code == 422


def events(http: httpx.Client, path: str, **headers: str) -> tuple[int, str]:
    answer = http.get(path, headers=headers)
    return answer.status_code, answer.text


def test_a_reader_of_events_learns_that_the_job_has_ended(node: Node) -> None:
    http = node.http
    job = http.post("/generate", json=PROMPT, headers=ASYNC).json()
    path = f"/jobs/{job['id']}/events"
    ended = http.post(f"/jobs/{job['id']}/cancel").json()
    status, text = events(http, path)
    assert (status, text.count("event: status"), text.count(f"retry: {RETRY_MS}")) == (200, 1, 1)
    data = next(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    assert (json.loads(data)["status"], f"id: {ended['version']}" in text) == ("cancelled", True)
    assert events(http, path, **{"Last-Event-ID": str(ended["version"])}) == (204, "")
    for other in (str(ended["version"] - 1), "0", "nonsense", "999999"):
        assert events(http, path, **{"Last-Event-ID": other})[0] == 200


def test_a_read_of_a_job_waits_for_its_end(node: Node) -> None:
    http = node.http
    job = http.post("/generate", json=PROMPT, headers=ASYNC).json()
    path, began = f"/jobs/{job['id']}", time.monotonic()
    waited = http.get(path, headers={"Prefer": "wait=1"})
    assert (waited.json()["status"], waited.headers["preference-applied"]) == ("queued", "wait=1")
    assert 0.9 < time.monotonic() - began < 8
    for other in ("", "respond-async", "wait=x", "wait=-1"):
        assert "preference-applied" not in http.get(path, headers={"Prefer": other}).headers
    answers: list[httpx.Response] = []
    prefer = {"Prefer": 'respond-async, wait="999999999"'}
    reader = threading.Thread(target=lambda: answers.append(http.get(path, headers=prefer, timeout=30)))
    reader.start()
    http.post(f"{path}/cancel")
    reader.join()
    told = answers[0].headers["preference-applied"]
    assert (answers[0].json()["status"], told) == ("cancelled", f"wait={MAX_WAIT_S}")
    assert http.get("/jobs/nope", headers={"Prefer": "wait=5"}).status_code == 404


def test_a_waiting_read_ends_when_the_node_stops(node: Node) -> None:
    job = node.http.post("/generate", json=PROMPT, headers=ASYNC).json()
    answers: list[httpx.Response] = []
    path = f"/jobs/{job['id']}"
    url = str(node.http.base_url.join(path))
    reader = threading.Thread(target=lambda: answers.append(httpx.get(url, headers={"Prefer": "wait=50"}, timeout=60)))
    reader.start()
    with node.http.stream("GET", f"{path}/events") as stream:
        next(stream.iter_lines())  # requests are answered meanwhile: the wait holds none of them up
        began = time.monotonic()
        node.begin_stop()
        reader.join()
    assert answers[0].json()["status"] == "queued"
    assert time.monotonic() - began < 15


def test_every_error_code_has_a_page_and_problems_link_to_it(shared: httpx.Client) -> None:
    problem = shared.get("/nothing").json()
    assert problem["type"] == "/docs/errors/not_found"
    for code in ErrorCode:
        read = shared.get(f"/docs/errors/{code}").json()
        assert (read["code"], read["meaning"]) == (code, code.meaning)
    page = shared.get(problem["type"], headers=HTML)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "not_found" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert len(shared.get("/docs/errors").json()["items"]) == len(ErrorCode)
    assert all(f"/docs/errors/{code}" in shared.get("/docs/errors", headers=HTML).text for code in list(ErrorCode)[:3])
    assert [shared.get(f"/docs/errors/{code}").status_code for code in ("nope", "N%20o")] == [404, 404]


def test_the_root_says_what_the_service_is(shared: httpx.Client) -> None:
    read = shared.get("/").json()
    assert (read["name"], read["version"]) == ("Foxhound", shared.get("/openapi.json").json()["info"]["version"])
    assert all(shared.get(path).status_code == 200 for path in read["links"].values())
    page = shared.get("/", headers=HTML, follow_redirects=False)
    assert (page.status_code, page.headers["location"]) == (307, "/ui")
    assert shared.get("/", headers={"Accept": "image/png"}).status_code == 406


@pytest.mark.parametrize(
    ("path", "sent", "words", "code"),
    [
        ("/generate", {"json": {**PROMPT, "width": 63}}, "Field width: ", "invalid_request"),
        ("/generate", {"json": {}}, "Field prompt: This field is required.", "invalid_request"),
        ("/classify", {"json": {"image_id": "x", "top_k": 0}}, "Field top_k: ", "invalid_request"),
        ("/classify", {"files": {"image": b"x"}, "data": {"top_k": "0"}}, "Field top_k: ", "invalid_request"),
        ("/classify", {"json": {"image_id": "x", "topk": 1}}, "Field topk: ", "invalid_request"),
        ("/classify", {"files": {"image": b"x"}, "data": {"topk": "1"}}, "Field topk: ", "invalid_request"),
        ("/classify", {"json": {}}, "Give exactly one", "one_image_source"),
        ("/clip-score", {"files": {"labels": (None, "fox")}}, "Field image: ", "one_image_source"),
        ("/classify", {"files": {"image": (None, "text")}}, "Field image: This must be a file", "invalid_request"),
        ("/jobs?limit=0", {"method": "GET"}, "Query parameter limit: ", "invalid_request"),
    ],
)
def test_a_detail_names_the_field_and_a_fault_has_one_code(
    shared: httpx.Client, path: str, sent: dict, words: str, code: str
) -> None:
    problem = shared.request(**{"method": "POST", "url": path, **sent}).json()
    assert (problem["status"], problem["code"]) == (422, code), problem
    assert problem["detail"].startswith(words), problem


def test_several_faults_are_named_together(shared: httpx.Client) -> None:
    problem = shared.post("/generate", json={"width": 1, "height": 1, "seed": -1}).json()
    assert problem["detail"].startswith("4 values are invalid: Field ")
    assert problem["detail"].endswith(", and 1 more.")
