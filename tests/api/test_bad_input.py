"""Whatever is wrong with a request, the answer is one clear problem, and the next request is served."""

import base64
import io
import json
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve

GOOD = {"prompt": "a fox", "num_inference_steps": 1}
CLASSES = [{"name": "fox", "prompts": ["a fox"]}, {"name": "dog", "prompts": ["a dog"]}]
DATASET = {"name": "bad-input", "classes": CLASSES}
LEAKS = re.compile(r"0x[0-9a-f]{6,}|Traceback|File \"|site-packages|sqlalchemy|psycopg|pydantic", re.IGNORECASE)


def assert_problem(answer: httpx.Response, status: int, code: str | None = None) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert not LEAKS.search(answer.text)
    problem = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= problem.keys()
    assert problem["status"] == status
    assert answer.headers["x-request-id"] == problem["request_id"]
    if code is not None:
        codes = {problem["code"], *(error["code"] for error in problem.get("errors", []))}
        assert code in codes, problem
    return problem


@pytest.fixture
def http(shared_node: Node) -> httpx.Client:
    return shared_node.http


@pytest.fixture(autouse=True)
def still_serves(http: httpx.Client) -> Iterator[None]:
    """After every bad request a good one is answered."""
    yield
    assert http.post("/generate", json=GOOD).status_code == 200


def post_raw(http: httpx.Client, body: bytes, content_type: str = "application/json") -> httpx.Response:
    return http.post("/generate", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, None),
        (b'{"prompt": "a', 400, "malformed_json"),
        (b"[1, 2]", 422, None),
        (b"null", 422, None),
        (b'{"prompt": "a fox", "guidance_scale": NaN}', 422, "not_finite"),
        (b'{"prompt": "a fox", "guidance_scale": Infinity}', 422, "not_finite"),
        (b'{"prompt": "a fox", "guidance_scale": 1e999}', 422, "not_finite"),
        (b'{"prompt": "a fox", "num_inference_steps": NaN}', 422, None),
        (b'{"prompt": "a fox", "seed": ' + b"9" * 5_000 + b"}", 400, "malformed_json"),
        (b'{"prompt": ' + b"[" * 100_000, 400, "malformed_json"),
        (b'{"prompt": "\xff\xfe"}', 400, None),
        (b'{"prompt": "a \\ud800 fox"}', 422, "text_not_storable"),
        (b'{"\\ud800": 1, "prompt": "a fox"}', 422, None),
        (b'{"prompt": "a\\u0000fox"}', 422, "text_not_storable"),
    ],
)
def test_bodies_that_are_not_requests(http: httpx.Client, body: bytes, status: int, code: str | None) -> None:
    assert_problem(post_raw(http, body), status, code)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "text/xml"])
def test_json_under_another_content_type_is_415(http: httpx.Client, content_type: str) -> None:
    assert_problem(post_raw(http, json.dumps(GOOD).encode(), content_type), 415, "unsupported_media_type")


def test_a_missing_content_type_is_415(http: httpx.Client) -> None:
    assert_problem(http.post("/generate", content=json.dumps(GOOD)), 415)


def test_a_compressed_body_is_415_and_never_inflated(http: httpx.Client) -> None:
    answer = http.post(
        "/generate",
        content=zlib.compress(b" " * 10_000_000),
        headers={"Content-Type": "application/json", "Content-Encoding": "deflate"},
    )
    assert_problem(answer, 415)


def test_a_misspelt_field_is_named_with_the_closest_one(http: httpx.Client) -> None:
    problem = assert_problem(http.post("/generate", json={**GOOD, "promt": "x"}), 422, "unknown_field")
    assert problem["errors"][0]["pointer"] == "#/promt"
    assert "prompt" in problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"prompt": ""}, "#/prompt"),
        ({"prompt": "   "}, "#/prompt"),
        ({"prompt": "\u200b\u200d"}, "#/prompt"),
        ({"prompt": "\u0301"}, "#/prompt"),
        ({"prompt": "x" * 2_001}, "#/prompt"),
        ({"prompt": 7}, "#/prompt"),
        ({"negative_prompt": "x" * 2_001}, "#/negative_prompt"),
        ({"width": 0}, "#/width"),
        ({"width": 63}, "#/width"),
        ({"width": 100}, "#/width"),
        ({"width": 2**31}, "#/width"),
        ({"width": 1024}, "#/width"),
        ({"height": -8}, "#/height"),
        ({"height": 64.5}, "#/height"),
        ({"num_inference_steps": 0}, "#/num_inference_steps"),
        ({"num_inference_steps": 151}, "#/num_inference_steps"),
        ({"num_inference_steps": "50"}, "#/num_inference_steps"),
        ({"num_inference_steps": True}, "#/num_inference_steps"),
        ({"guidance_scale": -1}, "#/guidance_scale"),
        ({"guidance_scale": 31}, "#/guidance_scale"),
        ({"guidance_scale": "7.5"}, "#/guidance_scale"),
        ({"num_images_per_prompt": 0}, "#/num_images_per_prompt"),
        ({"num_images_per_prompt": 17}, "#/num_images_per_prompt"),
        ({"seed": -1}, "#/seed"),
        ({"seed": 2**53}, "#/seed"),
        ({"seed": 2**53 - 1, "num_images_per_prompt": 2}, "#/seed"),
        ({"scheduler": "../x"}, "#/scheduler"),
        ({"output_format": "gif"}, "#/output_format"),
        ({"labels": []}, "#/labels"),
        ({"labels": ["a", "a"]}, "#/labels"),
        ({"labels": [""]}, "#/labels/0"),
        ({"labels": ["x"] * 257}, "#/labels"),
    ],
)
def test_values_out_of_bounds_are_422_at_their_place(http: httpx.Client, fields: dict, pointer: str) -> None:
    problem = assert_problem(http.post("/generate", json={**GOOD, **fields}), 422)
    assert pointer in [error["pointer"] for error in problem["errors"]]


PYDANTIC = re.compile(r"Input should|valid (dictionary|list|string)|instance of|Field required|should (have|match)")


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/generate", [], ("#", "model_attributes_type", "This must be a JSON object.")),
        ("/generate", {}, ("#/prompt", "missing", "This field is required.")),
        ("/generate", {**GOOD, "prompt": "x" * 2_001}, ("#/prompt", "too_long", "at most 2000 characters.")),
        ("/generate", {**GOOD, "negative_prompt": "x" * 2_001}, ("#/negative_prompt", "too_long", "2000 characters.")),
        ("/generate", {**GOOD, "labels": ["x" * 201]}, ("#/labels/0", "too_long", "at most 200 characters.")),
        ("/generate", {**GOOD, "labels": ["x"] * 257}, ("#/labels", "too_many", "at most 256 items.")),
        ("/generate", {**GOOD, "labels": []}, ("#/labels", "too_few", "at least 1 item.")),
        ("/generate", {**GOOD, "labels": {}}, ("#/labels", "list_type", "This must be a JSON array.")),
        ("/generate", {**GOOD, "prompt": ""}, ("#/prompt", "too_short", "at least 1 character.")),
        ("/generate", {**GOOD, "prompt": 7}, ("#/prompt", "string_type", "This must be a string.")),
        ("/generate", {**GOOD, "width": 65}, ("#/width", "multiple_of", "a multiple of 8.")),
        ("/generate", {**GOOD, "width": "wide"}, ("#/width", "int_type", "a whole number.")),
        ("/generate", {**GOOD, "guidance_scale": []}, ("#/guidance_scale", "float_type", "be a number.")),
        ("/generate", {**GOOD, "guidance_scale": 31}, ("#/guidance_scale", "too_large", "at most 30.")),
        (
            "/generate",
            {**GOOD, "output_format": "gif"},
            ("#/output_format", "literal_error", "'png', 'jpeg' or 'webp'."),
        ),
        ("/datasets", {**DATASET, "name": "A"}, ("#/name", "string_pattern_mismatch", "have the form ^[a-z0-9]")),
        ("/datasets", {**DATASET, "variables": []}, ("#/variables", "dict_type", "a JSON object.")),
        ("/datasets", {**DATASET, "variables": {"A": ["x"]}}, ("#/variables/A", "string_pattern_mismatch", "the form")),
        ("/datasets", {**DATASET, "variables": {"a": ["x" * 201]}}, ("#/variables/a/0", "too_long", "200 characters.")),
        ("/datasets", {**DATASET, "classes": [1, 2]}, ("#/classes/0", "model_attributes_type", "a JSON object.")),
        ("/train-jobs", {"dataset": 3}, ("#/dataset", "model_attributes_type", "a JSON object.")),
        ("/clip-score", {"labels": ["a"], "template": "x" * 201}, ("#/template", "too_long", "200 characters.")),
        ("/classify", {"model": "x" * 65}, ("#/model", "too_long", "64 characters.")),
        ("/classify", [1], ("#", "model_attributes_type", "a JSON object.")),
    ],
)
def test_common_faults_are_told_in_plain_words_with_the_right_unit(
    http: httpx.Client, path: str, body: object, told: tuple[str, str, str]
) -> None:
    problem = assert_problem(http.post(path, json=body), 422)
    pointer, code, words = told
    [fault] = [fault for fault in problem["errors"] if fault["pointer"] == pointer]
    assert (fault["code"], words in fault["detail"]) == (code, True), fault
    assert not PYDANTIC.search(json.dumps(problem))


def test_query_faults_are_told_in_plain_words(http: httpx.Client) -> None:
    for query, words in (("limit=x", "a whole number."), ("limit=0", "at least 1."), ("limit=101", "at most 100.")):
        problem = assert_problem(http.get(f"/datasets?{query}"), 422)
        assert (words in problem["detail"], PYDANTIC.search(problem["detail"])) == (True, None)
    problem = assert_problem(http.get("/images", params={"dataset_id": "a", "class": "x" * 201}), 422, "too_long")
    assert "200 characters" in problem["detail"]


def test_no_negative_prompt_may_be_said_by_null(http: httpx.Client) -> None:
    made = http.post("/generate", json={**GOOD, "seed": 1, "negative_prompt": None})
    assert (made.status_code, made.json()["parameters"]["negative_prompt"]) == (200, "")
    classes = [{**one, "negative_prompt": None} for one in CLASSES]
    body = {**DATASET, "classes": classes}
    assert http.post("/datasets?dry_run=true", json=body).status_code == 200
    # Well-formed as a whole: what is refused is the dataset that cannot be trained on.
    refused = http.post("/train-jobs", json={"dataset": {**body, "train_per_class": 0}})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["#/dataset/train_per_class"]


def test_a_request_too_large_as_a_whole_is_refused_with_its_size(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path / "data2", database_url, max_work_pixel_steps=1_000_000)
    with serve(settings, FakeModels()) as node:
        fields = {**GOOD, "num_inference_steps": 150, "num_images_per_prompt": 16}
        problem = assert_problem(node.http.post("/generate", json=fields), 422, "work_too_large")
        assert str(150 * 16 * 64 * 64) in problem["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/generations/nope",
        "/images/nope",
        "/images/nope/metadata",
        "/images/..%2f..%2fetc%2fpasswd",
        "/images/%2e%2e",
        "/images/%00",
        "/datasets/nope",
        "/datasets/nope/images",
        "/train-jobs/nope",
        "/jobs/nope",
        "/models/nope",
        "/models/nope/weights",
        "/nowhere",
        "/generations/",
        "/generate//",
    ],
)
def test_unknown_ids_and_paths_are_404(http: httpx.Client, path: str) -> None:
    assert_problem(http.get(path), 404)


@pytest.mark.parametrize("path", ["/jobs/nope/cancel", "/train-jobs/nope/cancel"])
def test_cancelling_nothing_is_404(http: httpx.Client, path: str) -> None:
    assert_problem(http.post(path), 404)


@pytest.mark.parametrize("path", ["/generations/nope", "/datasets/nope", "/models/nope"])
def test_deleting_nothing_is_404(http: httpx.Client, path: str) -> None:
    assert_problem(http.delete(path), 404)


def test_a_wrong_method_is_405_with_every_method_allowed(http: httpx.Client) -> None:
    answer = http.get("/generate")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"
    assert http.put("/datasets").headers["allow"] == "GET, HEAD, POST"
    assert http.put("/datasets/some-id").headers["allow"] == "DELETE, GET, HEAD"
    assert http.put("/models/compare").headers["allow"] == "GET, HEAD"
    assert http.post("/docs").headers["allow"] == "GET, HEAD"
    assert http.post("/ui/gallery").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("query", "status"),
    [("limit=0", 422), ("limit=101", 422), ("limit=x", 422), ("cursor=!!", 422), ("cursor=abcd", 400)],
)
@pytest.mark.parametrize("path", ["/generations", "/images", "/datasets", "/train-jobs", "/models", "/jobs"])
def test_bad_pages(http: httpx.Client, path: str, query: str, status: int) -> None:
    assert_problem(http.get(f"{path}?{query}"), status)


def test_a_filter_that_no_database_can_hold_is_422(http: httpx.Client) -> None:
    assert_problem(http.get("/images?class=%00"), 422, "text_not_storable")
    assert_problem(http.get("/images?dataset_id=%00"), 422)


def test_a_class_filter_without_its_dataset_is_422(http: httpx.Client) -> None:
    assert_problem(http.get("/images?class=fox"), 422, "class_not_found")


def image_bytes(size: tuple[int, int] = (8, 8), image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, image_format)
    return buffer.getvalue()


def huge_png() -> bytes:
    """The header of a 30,000 x 30,000 PNG with hardly any data."""
    whole = bytearray(image_bytes())
    whole[16:24] = (30_000).to_bytes(4, "big") * 2
    whole[29:33] = zlib.crc32(bytes(whole[12:29])).to_bytes(4, "big")
    return bytes(whole)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 415, "unsupported_image"),
        (b"just text", 415, "unsupported_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "unsupported_image"),
        (image_bytes(image_format="GIF"), 415, "unsupported_image"),
        (image_bytes(image_format="BMP"), 415, "unsupported_image"),
        (image_bytes((64, 64))[:100], 422, "corrupt_image"),
        (huge_png(), 413, "too_many_pixels"),
        (image_bytes((1_000_000, 1)), 422, "too_elongated"),
        (image_bytes((3, 301)), 422, "too_elongated"),
    ],
)
@pytest.mark.parametrize("path", ["/clip-score", "/classify"])
def test_uploads_that_are_no_usable_image(http: httpx.Client, path: str, data: bytes, status: int, code: str) -> None:
    form = {"labels": ["fox", "dog"]} if path == "/clip-score" else {}
    answer = http.post(path, files={"image": ("a.png", data, "image/png")}, data=form)
    problem = assert_problem(answer, status, code)
    assert problem["errors"][0]["pointer"] == "#/image"


def test_an_upload_over_the_limit_is_413(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path / "data2", database_url, max_upload_bytes=1_000)
    with serve(settings, FakeModels()) as node:
        answer = node.http.post("/classify", files={"image": image_bytes() + bytes(2_000)})
        assert_problem(answer, 413, "image_too_large")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"labels": ["fox"]}, 422, "one_image_source"),
        ({"labels": ["fox"], "image_id": "a", "image_b64": "aa=="}, 422, "one_image_source"),
        ({"labels": ["fox"], "image_id": "no-such"}, 422, "image_not_found"),
        ({"labels": ["fox"], "image_ids": []}, 422, "too_few"),
        ({"labels": ["fox"], "image_b64": "data:image/png;base64,AAAA"}, 422, "bad_base64"),
        ({"labels": ["fox"], "image_b64": "http://169.254.169.254/"}, 422, "bad_base64"),
        ({"labels": ["fox"], "image_b64": "AAA"}, 422, "bad_base64"),
        ({"labels": ["fox"], "image_b64": "AAAA"}, 415, "unsupported_image"),
        ({"labels": [], "image_id": "a"}, 422, "too_few"),
        ({"labels": ["a", "a"], "image_b64": "AAAA"}, 422, "duplicate_labels"),
        ({"labels": ["a"], "template": "no place", "image_b64": "AAAA"}, 422, "bad_template"),
        ({"labels": ["a"], "template": "{0.__class__}", "image_b64": "AAAA"}, 422, "bad_template"),
        ({"labels": ["a"], "image_url": "http://example.org/a.png"}, 422, "unknown_field"),
    ],
)
def test_clip_score_bodies(http: httpx.Client, fields: dict, status: int, code: str) -> None:
    assert_problem(http.post("/clip-score", json=fields), status, code)


def test_base64_may_be_broken_into_lines(http: httpx.Client) -> None:
    plain = base64.b64encode(image_bytes()).decode()
    lines = "\r\n".join(plain[start : start + 76] for start in range(0, len(plain), 76))
    for text in (plain, lines, f" {lines}\n\t", base64.encodebytes(image_bytes()).decode()):
        answer = http.post("/classify", json={"image_b64": text})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("AAA", "padded"),
        ("AAAAA===", "padded"),
        ("AA==AAAA", "base64"),
        ("A-_A", "base64 for URLs"),
        ("AA-_AAA", "base64 for URLs"),
        ("data:image/png;base64,AAAA", "data URL's prefix"),
        ("DATA:image/svg+xml," + "A" * 1_000_000, "data URL's prefix"),
        ("http://169.254.169.254/", "Send the image in base64"),
        ("ÄÖÜ=", "Send the image in base64"),
        ("\x0bAAAA", "Send the image in base64"),
    ],
)
def test_what_is_no_base64_is_told_what_is_wrong(http: httpx.Client, text: str, words: str) -> None:
    problem = assert_problem(http.post("/classify", json={"image_b64": text}), 422, "bad_base64")
    assert words in problem["detail"]


def test_forms_are_checked_like_json(http: httpx.Client) -> None:
    files = {"image": image_bytes()}
    assert_problem(http.post("/classify", data={"top_k": "3"}, files={"picture": b"x"}), 422, "unknown_field")
    assert_problem(http.post("/classify", data={"topk": "3"}, files=files), 422, "unknown_field")
    assert_problem(http.post("/classify", data={"top_k": "0"}, files=files), 422, "too_small")
    assert_problem(http.post("/classify", data={"top_k": "three"}, files=files), 422)
    assert_problem(http.post("/clip-score", files=files), 422, "missing")
    assert_problem(http.post("/classify", files=[("images", image_bytes())] * 33), 400, "malformed_form")


def test_a_form_without_boundary_is_400(http: httpx.Client) -> None:
    answer = http.post("/classify", content=b"--x\r\n", headers={"Content-Type": "multipart/form-data"})
    assert_problem(answer, 400)


def test_an_unknown_model_is_422(http: httpx.Client) -> None:
    answer = http.post("/classify", data={"model": "no-such"}, files={"image": image_bytes()})
    assert_problem(answer, 422, "model_not_found")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"name": "Fox Dog"}, "#/name"),
        ({"name": "../x"}, "#/name"),
        ({"name": "a" * 64}, "#/name"),
        ({"classes": []}, "#/classes"),
        ({"classes": DATASET["classes"][:1]}, "#/classes"),
        ({"classes": [DATASET["classes"][0], {"name": "FOX", "prompts": ["a"]}]}, "#/classes"),
        ({"classes": [{"name": "é", "prompts": ["a"]}, {"name": "e\u0301", "prompts": ["a"]}]}, "#/classes"),
        ({"classes": [DATASET["classes"][0], {"name": "dog", "prompts": []}]}, "#/classes/1/prompts"),
        ({"classes": [DATASET["classes"][0], {"name": "dog", "prompts": [" "]}]}, "#/classes/1/prompts/0"),
        ({"train_per_class": 10**9}, "#/train_per_class"),
        ({"train_per_class": 100_000}, "#/classes"),
        ({"generation": {"width": 1024}}, "#/generation/width"),
        ({"generation": {"width": 65}}, "#/generation/width"),
        ({"generation": {"num_images_per_prompt": 2}}, "#/generation/num_images_per_prompt"),
        ({"filters": {}}, "#/filters"),
        ({"seed": -1}, "#/seed"),
    ],
)
def test_datasets_that_cannot_be(http: httpx.Client, changes: dict, pointer: str) -> None:
    problem = assert_problem(http.post("/datasets", json={**DATASET, **changes}), 422)
    assert pointer in [error["pointer"] for error in problem["errors"]]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({}, 422, "one_dataset"),
        ({"dataset_id": "a", "dataset": DATASET}, 422, "one_dataset"),
        ({"dataset_id": "no-such"}, 422, "dataset_not_found"),
        ({"dataset": DATASET, "epochs": 0}, 422, "too_small"),
        ({"dataset": DATASET, "epochs": 10**9}, 422, "too_large"),
        ({"dataset": DATASET, "batch_size": 0}, 422, "too_small"),
        ({"dataset": DATASET, "optimizer": {"lr": 0}}, 422, "too_small"),
        ({"dataset": DATASET, "optimizer": {"name": "adamw"}}, 422, None),
        ({"dataset": DATASET, "name": "demo"}, 409, "model_name_taken"),
        ({"dataset": DATASET, "name": "01890a5d-ac96-774b-bcce-b302099a8057"}, 422, "bad_model_name"),
        ({"dataset": {**DATASET, "train_per_class": 0}}, 422, "dataset_empty"),
        ({"dataset": {**DATASET, "generation": {"width": 1024}}}, 422, "size_not_supported"),
    ],
)
def test_train_jobs_that_cannot_be(http: httpx.Client, fields: dict, status: int, code: str | None) -> None:
    assert_problem(http.post("/train-jobs", json=fields), status, code)
    assert http.get("/datasets").json()["items"] == []


def test_a_dataset_without_training_images_is_named_where_it_was_given(http: httpx.Client) -> None:
    body = {"dataset": {**DATASET, "train_per_class": 0}}
    problem = assert_problem(http.post("/train-jobs", json=body), 422, "dataset_empty")
    assert problem["errors"][0]["pointer"] == "#/dataset/train_per_class"


def test_a_body_over_the_limit_is_413_with_or_without_its_length(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path / "data2", database_url, max_body_bytes=10_000)
    with serve(settings, FakeModels()) as node:
        body = json.dumps({**GOOD, "prompt": "x" * 20_000}).encode()
        headers = {"Content-Type": "application/json"}
        assert_problem(node.http.post("/generate", content=body, headers=headers), 413)
        chunks = iter([body[:8_000], body[8_000:16_000], body[16_000:]])
        assert_problem(node.http.post("/generate", content=chunks, headers=headers), 413)


def test_a_body_that_never_comes_is_408(tmp_path: Path, database_url: str) -> None:
    with serve(make_settings(tmp_path / "data2", database_url, body_timeout_s=0.3), FakeModels()) as node:
        head = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += b"Content-Length: 100\r\n\r\n{"
        with socket.create_connection((node.http.base_url.host, node.http.base_url.port or 0), timeout=10) as client:
            client.sendall(head)
            answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"application/problem+json" in answer
        assert b"body_too_slow" in answer


def test_no_problem_repeats_what_was_sent(http: httpx.Client) -> None:
    secret = "s3cr3t-value"
    answers = [
        http.post("/generate", json={**GOOD, "scheduler": secret}),
        http.post("/generate", json={**GOOD, "width": secret}),
        http.post("/clip-score", json={"labels": ["a"], "image_b64": secret}),
        http.get(f"/generations?cursor={secret}"),
        post_raw(http, f'{{"prompt": "{secret}'.encode()),
    ]
    assert all(answer.status_code >= 400 and secret not in answer.text for answer in answers)
