"""Numbered cases of docs/hostile-input.md that no other file has: syntax, values, forms, browsers, load."""

import io
import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from PIL import Image

from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.waiting import PATIENCE_S, wait_until
from tests.api.test_bad_input import DATASET, GOOD, assert_problem, image_bytes

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def http(shared_node: Node) -> httpx.Client:
    return shared_node.http


def exchange(http: httpx.Client, data: bytes, *, until: bytes = b"") -> bytes:
    """Send bytes as they are and return what comes back: until the server closes, or has said `until`."""
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=PATIENCE_S) as client:
        client.sendall(data)
        received = b""
        while chunk := client.recv(65_536):
            received += chunk
            if until and until in received:
                break
    return received


# A. HTTP and JSON.


@pytest.mark.parametrize("body", ["text", 7, True, None, [], [{}]])
@pytest.mark.parametrize("path", ["/generate", "/datasets", "/train-jobs", "/classify"])
def test_json_that_is_no_object_is_422_at_the_whole_body(http: httpx.Client, path: str, body: object) -> None:
    problem = assert_problem(http.post(path, content=json.dumps(body), headers=JSON), 422)
    assert [error["pointer"] for error in problem["errors"]] == ["#"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_bom_is_no_fault_and_other_unicode_is_read_or_malformed(http: httpx.Client, encoding: str) -> None:
    answer = http.post("/generate", content=json.dumps({**GOOD, "prompt": "狐"}).encode(encoding), headers=JSON)
    if encoding == "utf-8-sig" or answer.is_success:
        assert answer.json()["parameters"]["prompt"] == "狐"
    else:
        assert_problem(answer, 400, "malformed_json")


def test_of_a_repeated_member_the_last_counts(http: httpx.Client) -> None:
    body = b'{"prompt": "a fox", "num_inference_steps": 0, "num_inference_steps": 1}'
    answer = http.post("/generate", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["parameters"]["num_inference_steps"]) == (200, 1)


@pytest.mark.parametrize("charset", ["latin1", "utf-16", "no-such-charset", '"'])
def test_a_charset_is_read_as_utf_8_or_refused(http: httpx.Client, charset: str) -> None:
    body = json.dumps({**GOOD, "prompt": "ein Füchslein"}, ensure_ascii=False).encode()
    answer = http.post("/generate", content=body, headers={"Content-Type": f"application/json; charset={charset}"})
    if answer.is_success:
        assert answer.json()["parameters"]["prompt"] == "ein Füchslein"
    else:
        assert_problem(answer, 415)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PROPFIND"])
def test_other_methods_are_405_and_trace_repeats_nothing(http: httpx.Client, method: str) -> None:
    answer = http.request(method, "/generate", headers={"X-Secret": "s3cr3t"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "s3cr3t" not in answer.text


@pytest.mark.parametrize("path", ["/generate/", "/datasets/", "//datasets", "/GENERATE", "/./generate%00"])
def test_a_path_that_is_nearly_one_is_404_and_no_redirect(http: httpx.Client, path: str) -> None:
    answer = httpx.post(f"{http.base_url}".rstrip("/") + path, json=GOOD, follow_redirects=False)
    assert_problem(answer, 404)


def test_a_kept_connection_serves_after_an_error_and_pipelined_requests_in_order(http: httpx.Client) -> None:
    bad = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    good = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = exchange(http, bad + good + last)
    assert [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)] == [422, 200, 404]


# B. Values.


def test_the_longest_prompt_is_taken_one_more_is_not_and_a_megabyte_is_quickly_refused(http: httpx.Client) -> None:
    assert http.post("/generate", json={**GOOD, "prompt": "x" * 2_000}).status_code == 200
    for length in (2_001, 1_000_000):
        answer = http.post("/generate", json={**GOOD, "prompt": "x" * length})
        assert answer.status_code in (413, 422)
        assert len(answer.content) < 1_000
    for labels in ([""], ["x" * 1_000_000], ["x"] * 10_000):
        assert http.post("/clip-score", json={"labels": labels, "image_b64": "AAAA"}).status_code in (413, 422)


@pytest.mark.parametrize(
    "prompt",
    [
        "a \u202efox\u202c",
        "👩\u200d👩\u200d👧 🦊",
        "\x1b[31mred\x1b[0m",
        "a fox\r\nSet-Cookie: a=b",
        "<|endoftext|><|startoftext|> a fox",
        "{{ 7 * 7 }} {0.__class__} ${jndi:ldap://x} %s %n",
        "<sks> *.* ../../etc/passwd",
        "'; DROP TABLE images; --",
    ],
)
def test_any_text_is_a_prompt_and_comes_back_as_it_was(http: httpx.Client, prompt: str) -> None:
    read = http.post("/generate", json={**GOOD, "prompt": prompt, "negative_prompt": prompt}).json()
    assert (read["parameters"]["prompt"], read["parameters"]["negative_prompt"]) == (prompt, prompt)
    again = http.get(f"/generations/{read['id']}").json()
    assert again["parameters"]["prompt"] == prompt
    picture = Image.open(io.BytesIO(http.get(read["images"][0]["url"]).content))
    picture.load()


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**53 - 1])
def test_every_seed_of_the_range_is_taken(http: httpx.Client, seed: int) -> None:
    images = [http.post("/generate", json={**GOOD, "seed": seed}).json()["images"][0] for _ in range(2)]
    assert [image["seed"] for image in images] == [seed, seed]
    assert images[0]["sha256"] == images[1]["sha256"]


@pytest.mark.parametrize("seed", [2**53, 2**63, 2**64, 10**30, -(2**63)])
def test_no_other_seed_is(http: httpx.Client, seed: int) -> None:
    assert_problem(http.post("/generate", json={**GOOD, "seed": seed}), 422)


@pytest.mark.parametrize("counts", [(-1, 10), (10, -1), (0.9, 0.1), ("10", 1), (None, 1)])
def test_splits_are_counts_and_nothing_else(http: httpx.Client, counts: tuple[object, object]) -> None:
    body = {**DATASET, "train_per_class": counts[0], "test_per_class": counts[1]}
    assert_problem(http.post("/datasets", json=body), 422)


@pytest.mark.parametrize("optimizer", ['{"lr": NaN}', '{"lr": 1e9}', '{"lr": -0.0}', '{"momentum": 1}'])
def test_training_settings_that_cannot_converge_are_refused(http: httpx.Client, optimizer: str) -> None:
    body = f'{{"dataset": {json.dumps(DATASET)}, "optimizer": {optimizer}}}'
    assert_problem(http.post("/train-jobs", content=body, headers=JSON), 422)


# C. Forms.


@pytest.mark.parametrize("name", ["a.png", "a.exe", "../../a.png", "\u202egnp.a", "a" * 250])
@pytest.mark.parametrize("content_type", ["image/png", "text/html", "application/x-msdownload"])
def test_a_file_is_what_its_bytes_are(http: httpx.Client, name: str, content_type: str) -> None:
    jpeg = image_bytes(image_format="JPEG")
    assert http.post("/classify", files={"image": (name, jpeg, content_type)}).status_code == 200


def part(head: str, data: bytes = b"x") -> bytes:
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n"


FILE = 'Content-Disposition: form-data; name="{}"; filename="a"'
FIELD = 'Content-Disposition: form-data; name="{}"'


@pytest.mark.parametrize(
    "form",
    [
        b"".join(part(FILE.format("images"), image_bytes()) for _ in range(1_000)) + b"--b--\r\n",
        b"".join(part(FIELD.format(f"f{index}")) for index in range(10_000)) + b"--b--\r\n",
        part(FIELD.format("x" * 1_000_000)) + b"--b--\r\n",
        part(FIELD.format("top_k") + "\r\nX-Fill: " + "x" * 1_000_000) + b"--b--\r\n",
        part(FIELD.format("top_k") + "\r\nX-Fill: x" * 10_000) + b"--b--\r\n",
        b"x" * 5_000_000,
        b"\r\n" * 1_000_000 + b"--c\r\n",
        part(FIELD.format("top_k"))[:-3],
        b"--b",
        b"",
    ],
    ids=["files", "fields", "long name", "long header", "headers", "preamble", "lines", "cut off", "bare", "empty"],
)
def test_forms_out_of_all_bounds_are_refused(http: httpx.Client, form: bytes) -> None:
    answer = http.post("/classify", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code in (400, 413, 422), answer.text
    assert_problem(answer, answer.status_code)
    assert http.post("/classify", files={"image": image_bytes()}).status_code == 200


@pytest.mark.parametrize("url", ["http://169.254.169.254/a.png", "file:///etc/passwd", "gopher://127.0.0.1:1/_x"])
def test_no_url_is_fetched(http: httpx.Client, url: str) -> None:
    """Nothing here opens connections to the outside; a URL is neither an id, nor base64, nor a picture."""
    for body in ({"image_b64": url}, {"image_id": url}, {"image_ids": [url]}, {"image_url": url}):
        assert_problem(http.post("/classify", json=body), 422)
    assert_problem(http.post("/classify", files={"image": (None, url)}), 422)
    assert_problem(http.post("/classify", files={"image": url.encode()}), 415)


# D. Downloads.


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes=0-0,2-3",
        "bytes=-5",
        "bytes=-0",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=0-999999999999999999999999",
        "items=0-1",
        "bytes=" + ",".join(f"{start}-{start}" for start in range(2_000)),
        "bytes=" + "0-," * 2_000,
    ],
)
def test_any_range_gives_a_part_all_of_it_or_416(http: httpx.Client, ranges: str) -> None:
    url = http.post("/generate", json=GOOD).json()["images"][0]["url"]
    whole = http.get(url).content
    answer = http.get(url, headers={"Range": ranges})
    assert answer.status_code in (200, 206, 400, 416, 422)  # 422: a header of more than 8,000 characters
    assert len(answer.content) <= 2 * len(whole) + 300 * 2_000
    if answer.status_code == 200:
        assert answer.content == whole
    elif answer.status_code != 206:
        assert_problem(answer, answer.status_code)


def test_every_answer_forbids_to_guess_its_type(http: httpx.Client) -> None:
    image = http.post("/generate", json=GOOD).json()["images"][0]
    for path in (image["url"], "/livez", "/nowhere", "/docs", "/openapi.json"):
        assert http.get(path).headers["x-content-type-options"] == "nosniff"


# E. Browsers and proxies.


@pytest.mark.parametrize("host", ["evil.example", "evil/?", "x/docs?", "127.0.0.1:1", "[::1]", ""])
def test_no_answer_depends_on_the_host(http: httpx.Client, host: str) -> None:
    answer = http.post("/datasets?dry_run=true", json=DATASET, headers={"Host": host})
    assert answer.status_code in (200, 400, 421)
    assert http.get("/nowhere", headers={"Host": host}).status_code in (400, 404, 421)
    accepted = http.post("/generate", json=GOOD, headers={"Host": host, "Prefer": "respond-async"})
    assert accepted.status_code in (400, 421) or accepted.headers["location"].startswith("/jobs/")


@pytest.mark.parametrize("origin", ["null", "http://evil.example"])
def test_no_other_site_may_read_or_post(http: httpx.Client, origin: str) -> None:
    headers = {"Origin": origin}
    preflight = http.options("/datasets", headers={**headers, "Access-Control-Request-Method": "POST"})
    read = http.get("/datasets", headers=headers)
    for answer in (preflight, read):
        assert not any(name.startswith("access-control-") for name in answer.headers)
    assert preflight.status_code == 405
    # What a page of another site can send without asking first.
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"):
        answer = http.post("/datasets", content=json.dumps(DATASET), headers={**headers, "Content-Type": content_type})
        assert_problem(answer, 403, "cross_site_refused")
    assert http.get("/datasets").json()["items"] == []


def test_what_a_proxy_would_say_changes_no_answer(http: httpx.Client) -> None:
    spoofed = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    spoofed |= {"Forwarded": "for=10.0.0.1;host=evil.example", "X-Original-URL": "/jobs", "X-Rewrite-URL": "/jobs"}
    answer = http.post("/generate", json=GOOD, headers={**spoofed, "Prefer": "respond-async"})
    assert answer.headers["location"].startswith("/jobs/")
    assert "evil" not in answer.text + str(answer.headers)
    assert http.get("/datasets", headers=spoofed).json().keys() == {"items", "next_cursor", "total"}


def test_no_line_break_reaches_a_header(http: httpx.Client) -> None:
    head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a%0d%0aSet-Cookie: b\r\n"
    head += b"Content-Type: application/json\r\nAccept: image/png\r\nConnection: close\r\n"
    body = json.dumps({**GOOD, "prompt": "a\r\nSet-Cookie: a=b"}).encode()
    received = exchange(http, head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert received.startswith(b"HTTP/1.1 200")
    assert b"set-cookie" not in received.partition(b"\r\n\r\n")[0].lower()


# F. Load.


def test_a_client_that_leaves_while_its_image_is_sent_hurts_nobody(http: httpx.Client) -> None:
    read = http.post("/generate", json={**GOOD, "width": 192, "height": 192}).json()
    url = read["images"][0]["url"].encode()
    for _ in range(20):
        exchange(http, b"GET " + url + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", until=b"HTTP/1.1 200")
    assert http.get(url.decode()).status_code == 200
    assert http.get(f"/generations/{read['id']}").json()["images"][0]["id"] == read["images"][0]["id"]


def test_equal_requests_at_once_have_answers_of_their_own(http: httpx.Client) -> None:
    with ThreadPoolExecutor(10) as pool:
        reads = list(pool.map(lambda _: http.post("/generate", json={**GOOD, "seed": 3}).json(), range(10)))
    assert len({read["id"] for read in reads}) == 10
    assert len({read["images"][0]["sha256"] for read in reads}) == 1


def test_clients_that_try_again_at_once_are_all_answered_in_the_end(small_node: Node) -> None:
    def insist(seed: int) -> int:
        tries = 0
        while True:
            tries += 1
            answer = small_node.http.post("/generate", json={**GOOD, "seed": seed})
            if answer.status_code == 200:
                return tries
            assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
            assert int(answer.headers["retry-after"]) >= 1

    with ThreadPoolExecutor(16) as pool:
        assert len(list(pool.map(insist, range(64)))) == 64


def test_a_node_tells_how_it_is_while_its_engine_stands_still(tmp_path: Path, database_url: str) -> None:
    models = FakeModels()
    with serve(make_settings(tmp_path / "data2", database_url), models) as node, ThreadPoolExecutor(1) as pool:
        models.diffusion.gate.clear()
        stuck = pool.submit(node.http.post, "/generate", json=GOOD)
        wait_until(models.diffusion.stepping.is_set)
        for path in ("/livez", "/readyz", "/capabilities", "/datasets", "/openapi.json"):
            assert node.http.get(path).status_code == 200
        assert not stuck.done()
        models.diffusion.gate.set()
        assert stuck.result(PATIENCE_S).status_code == 200


def test_idle_connections_keep_nobody_out(http: httpx.Client) -> None:
    idle = [
        socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=PATIENCE_S) for _ in range(50)
    ]
    try:
        assert http.post("/generate", json=GOOD).status_code == 200
    finally:
        for client in idle:
            client.close()
    assert threading.active_count() < 200
