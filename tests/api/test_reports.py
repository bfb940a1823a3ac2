"""Reports on datasets of uploaded pictures, by models that know red from blue."""

import base64
import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.engine.clip.runner import ClipPayload, ClipScores
from app.engine.request import EngineRequest
from app.errors import InferenceFailed
from app.services.reports.contact_sheet import sheet_size
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.uploads import create_empty, upload
from testing.waiting import PATIENCE_S
from testing.wire import asking

FOX, DOG, CAT = "fox", "dog", "cat"


class ColourClip:
    """Takes red for a fox and blue for a dog, fails on green; embeds a picture as its pixels, around their mean.

    Attributes:
        num_images: Images scored so far.
        gate: Steps wait while it is cleared.
        is_stepping: Set once a step has begun.
        requests: Those of the step under way, or of the last one.
    """

    def __init__(self) -> None:
        self.num_images = 0
        self.gate = threading.Event()
        self.gate.set()
        self.is_stepping = threading.Event()
        self.requests: Sequence[EngineRequest] = ()

    def prepare(self, request: EngineRequest) -> None:
        request.state = 0

    def step(self, requests: Sequence[EngineRequest]) -> None:
        self.requests = requests
        self.is_stepping.set()
        self.gate.wait(PATIENCE_S)
        self.num_images += len(requests)

    def is_finished(self, request: EngineRequest) -> bool:
        return True

    def finish(self, request: EngineRequest) -> ClipScores:
        assert isinstance(request.payload, ClipPayload)
        pixels = request.payload.pixels.numpy()
        red, green, blue = 10 * pixels.mean(axis=(1, 2))
        if green > max(red, blue):
            raise InferenceFailed
        by_text = {f"a photo of a {FOX}": red, f"a photo of a {DOG}": blue}
        logits = [float(by_text.get(bytes(text).decode(), 0.0)) for text in request.payload.texts]
        vector = (pixels - pixels.mean(axis=(1, 2), keepdims=True)).ravel()
        embedding = (vector / np.linalg.norm(vector)).astype(np.float32)
        return ClipScores((1.0,), tuple(logits), (0.0,), embedding)


@pytest.fixture
def clip() -> ColourClip:
    return ColourClip()


@pytest.fixture
def node(tmp_path: Path, database_url: str, clip: ColourClip) -> Iterator[Node]:
    with serve(make_settings(tmp_path / "data", database_url), FakeModels(lambda: clip)) as served:
        yield served
        clip.gate.set()


def coloured(seed: int, channel: int, strength: int = 150, *, changed: bool = False) -> bytes:
    """A PNG of noise in one channel's colour; `changed` alters a single pixel of it."""
    pixels = np.random.default_rng(seed).integers(0, 60, (12, 16, 3), dtype=np.uint8)
    pixels[..., channel] += strength
    pixels[0, 0, 1] = 20 if changed else 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def red(seed: int, strength: int = 150, *, changed: bool = False) -> bytes:
    return coloured(seed, 0, strength, changed=changed)


def blue(seed: int, strength: int = 150, *, changed: bool = False) -> bytes:
    return coloured(seed, 2, strength, changed=changed)


def create(http: httpx.Client, name: str = "fox-dog") -> str:
    names = [FOX, DOG, CAT]
    read = create_empty(http, name, classes=[{"name": name, "prompts": ["a prompt"]} for name in names])
    return str(read["id"])


def add(http: httpx.Client, dataset_id: str, class_name: str, split: str, files: list[bytes]) -> list[str]:
    answer = upload(http, dataset_id, files, class_name=class_name, split=split)
    assert answer.status_code == 201, answer.text
    return [file["image_id"] for file in answer.json()["files"]]


def report(http: httpx.Client, dataset_id: str, **query: Any) -> dict:
    answer = http.get(f"/datasets/{dataset_id}/report", params=query)
    assert answer.status_code == 200, answer.text
    read: dict = answer.json()
    return read


def test_planted_faults_are_named(http: httpx.Client, clip: ColourClip) -> None:
    dataset_id = create(http)
    foxes = add(http, dataset_id, FOX, "train", [red(1, 100), red(2, 120), red(3), blue(4)])
    tests = add(http, dataset_id, FOX, "test", [red(1, 100, changed=True), red(5)])
    dogs = add(http, dataset_id, DOG, "train", [blue(6), blue(6, changed=True)])
    read = report(http, dataset_id)

    assert [read[name] for name in ("num_images", "num_real", "num_synthetic", "num_judged")] == [8, 8, 0, 8]
    assert (read["num_left_out"], read["is_sample"]) == (0, False)
    assert read["version"] == http.get(f"/datasets/{dataset_id}/version").json()["version"]
    fox, dog, cat = read["classes"]
    assert (fox["num_train"], fox["num_test"], fox["num_judged"], fox["text"]) == (4, 2, 6, "a photo of a fox")
    assert (fox["agreement"], dog["agreement"], read["agreement"]) == (pytest.approx(5 / 6), 1, pytest.approx(7 / 8))
    worst = fox["worst"][0]
    assert (worst["image_id"], worst["predicted_class"], worst["split"]) == (foxes[3], DOG, "train")
    assert {fox["best"][0]["image_id"], fox["best"][1]["image_id"]} == {foxes[2], tests[1]}
    cells = {(cell["class_name"], cell["predicted_class"]): cell["count"] for cell in read["confusion"]}
    assert cells == {(FOX, FOX): 5, (DOG, DOG): 2, (FOX, DOG): 1}
    assert read["num_confusion_cells"] == 3
    labels = [(label["label"], label["count"]) for label in fox["top_labels"]]
    assert (labels, fox["top_labels"][0]["share"]) == ([("fox", 5), ("dog", 1)], pytest.approx(5 / 6))
    assert (cat["num_judged"], cat["agreement"], cat["diversity"], cat["best"], cat["top_labels"]) == (
        0,
        None,
        None,
        [],
        [],
    )
    assert dog["diversity"] < 0.02 < fox["diversity"]

    duplicates, leakage = read["near_duplicates"], read["leakage"]
    assert {frozenset(pair["image_ids"]) for pair in duplicates["pairs"]} == {
        frozenset((foxes[0], tests[0])),
        frozenset(dogs),
    }
    assert (duplicates["num_pairs"], duplicates["num_images"]) == (2, 4)
    assert [set(pair["image_ids"]) for pair in leakage["pairs"]] == [{foxes[0], tests[0]}]
    assert (leakage["num_pairs"], leakage["num_images"]) == (1, 1)
    assert clip.num_images == 8


def test_a_picture_in_any_two_splits_is_leakage(http: httpx.Client) -> None:
    dataset_id = create(http)
    train = add(http, dataset_id, FOX, "train", [red(1, 100), red(2, 120), red(2, 120, changed=True)])
    validation = add(http, dataset_id, FOX, "validation", [red(1, 100, changed=True), red(3)])
    test = add(http, dataset_id, FOX, "test", [red(3, changed=True)])
    read = report(http, dataset_id)
    fox = read["classes"][0]
    assert (fox["num_train"], fox["num_validation"], fox["num_test"]) == (3, 2, 1)
    leaked = {frozenset(pair["image_ids"]) for pair in read["leakage"]["pairs"]}
    assert leaked == {frozenset((train[0], validation[0])), frozenset((validation[1], test[0]))}
    assert (read["leakage"]["num_pairs"], read["leakage"]["num_images"]) == (2, 3)  # of validation and test
    assert read["near_duplicates"]["num_pairs"] == 3
    page = http.get(f"/datasets/{dataset_id}/report", headers={"Accept": "text/html"}).text
    assert '<th scope="col">Validation</th>' in page


def test_a_browser_gets_a_page_and_everybody_else_the_figures(node: Node) -> None:
    http, hostile = node.http, "<script>alert(1)</script>"
    classes = [{"name": name, "prompts": ["a prompt"]} for name in (FOX, hostile)]
    dataset_id = str(create_empty(http, classes=classes)["id"])
    shown = add(http, dataset_id, FOX, "train", [red(1)])
    path, browser = f"/datasets/{dataset_id}/report", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    page = http.get(path, headers={"Accept": browser})
    assert (page.status_code, page.headers["content-type"], page.headers["vary"]) == (
        200,
        "text/html; charset=utf-8",
        "Accept, Accept-Encoding",
    )
    policy = page.headers["content-security-policy"]
    style = page.text.split("<style>")[1].split("</style>")[0]
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy
    assert (policy.startswith("default-src 'none'"), "<script" in page.text) == (True, False)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    link = f"../../images/{shown[0]}"
    assert f'src="{link}"' in page.text
    assert http.get(httpx.URL(page.url).join(link)).headers["content-type"] == "image/png"
    for accept in ("*/*", "application/json", "application/json, text/html"):
        assert http.get(path, headers={"Accept": accept}).json()["num_images"] == 1
    refused = http.get(path, headers={"Accept": "text/csv"})
    assert (refused.status_code, refused.json()["code"]) == (406, "not_acceptable")
    empty = http.get(f"/datasets/{create(http, 'empty')}/report", headers={"Accept": browser})
    assert (empty.status_code, empty.json()["code"]) == (409, "dataset_empty")


def test_a_second_report_asks_the_models_nothing_and_one_of_more_images_only_for_those(
    http: httpx.Client, clip: ColourClip
) -> None:
    dataset_id = create(http)
    add(http, dataset_id, FOX, "train", [red(1), red(2)])
    first = report(http, dataset_id)
    assert (report(http, dataset_id), clip.num_images) == (first, 2)
    add(http, dataset_id, FOX, "train", [red(3)])
    assert (report(http, dataset_id)["num_judged"], clip.num_images) == (3, 3)


def test_a_sample_is_stated_takes_from_every_class_and_is_the_same_each_time(http: httpx.Client) -> None:
    dataset_id = create(http)
    for index, name in enumerate((FOX, DOG)):
        add(http, dataset_id, name, "train", [red(100 * index + seed) for seed in range(5)])
    read = report(http, dataset_id, max_images=4)
    assert (read["num_images"], read["num_judged"], read["is_sample"]) == (10, 4, True)
    assert [entry["num_judged"] for entry in read["classes"]] == [2, 2, 0]
    assert report(http, dataset_id, max_images=4) == read


def test_an_image_whose_file_is_gone_or_another_is_left_out(node: Node) -> None:
    http, dataset_id = node.http, create(node.http)
    add(http, dataset_id, FOX, "train", [red(seed) for seed in range(3)])
    gone, other, _ = sorted((node.settings.data_dir / "datasets").rglob("*.png"))
    gone.unlink()
    other.write_bytes(blue(1))
    read = report(http, dataset_id)
    assert (read["num_images"], read["num_judged"], read["num_left_out"]) == (3, 1, 2)
    assert [image["code"] for image in read["left_out"]] == ["image_file_missing", "image_file_damaged"]
    shown = http.get(f"/datasets/{dataset_id}/report", headers={"Accept": "text/html"}).text
    assert all(image["image_id"] in shown for image in read["left_out"])
    for path in (node.settings.data_dir / "datasets").rglob("*.png"):
        path.unlink()
    (node.settings.data_dir / "features").rename(node.settings.data_dir / "elsewhere")
    answer = http.get(f"/datasets/{dataset_id}/report")
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_unreadable")


def test_an_image_on_which_a_model_fails_is_left_out(http: httpx.Client) -> None:
    dataset_id = create(http)
    add(http, dataset_id, FOX, "train", [red(1), coloured(2, channel=1)])
    read = report(http, dataset_id)
    assert (read["num_judged"], read["num_left_out"]) == (1, 1)
    assert [image["code"] for image in read["left_out"]] == ["not_judged"]


def test_a_report_waits_while_the_engine_is_full(tmp_path: Path, database_url: str, clip: ColourClip) -> None:
    settings = make_settings(tmp_path / "data", database_url, max_queue_size=1)
    with serve(settings, FakeModels(lambda: clip)) as node, ThreadPoolExecutor(1) as pool:
        dataset_id = create(node.http)
        add(node.http, dataset_id, FOX, "train", [red(seed) for seed in range(12)])
        clip.gate.clear()
        answer = pool.submit(node.http.get, f"/datasets/{dataset_id}/report")
        assert clip.is_stepping.wait(PATIENCE_S)
        clip.gate.set()
        assert answer.result(PATIENCE_S).json()["num_judged"] == 12


@pytest.mark.parametrize("page", ["report", "contact-sheet.png"])
def test_nothing_to_report_on_is_a_problem(http: httpx.Client, page: str) -> None:
    assert http.get(f"/datasets/unknown/{page}").status_code == 404
    answer = http.get(f"/datasets/{create(http)}/{page}")
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_empty")


@pytest.mark.parametrize(
    "query", ["max_images=0", "max_images=10001", "near_duplicate_cosine=1.1", "near_duplicate_cosine=nan"]
)
def test_values_out_of_bounds_are_refused(http: httpx.Client, query: str) -> None:
    assert http.get(f"/datasets/{create(http)}/report?{query}").status_code == 422


def test_a_single_image_has_a_report(http: httpx.Client) -> None:
    dataset_id = create(http)
    add(http, dataset_id, DOG, "test", [blue(1)])
    read = report(http, dataset_id)
    assert (read["num_judged"], read["agreement"], read["diversity"]) == (1, 1, None)
    assert (read["near_duplicates"]["num_pairs"], read["leakage"]["num_pairs"]) == (0, 0)


def test_a_thousand_classes_have_a_report_and_pages_of_a_sheet(http: httpx.Client) -> None:
    names = [FOX, DOG, *(f"class {index}" for index in range(998))]
    classes = [{"name": name, "prompts": ["a prompt"]} for name in names]
    dataset_id = str(create_empty(http, classes=classes)["id"])
    add(http, dataset_id, FOX, "train", [red(1)])
    add(http, dataset_id, "class 997", "train", [blue(2)])
    read = report(http, dataset_id)
    assert len(read["classes"]) == 1_000
    assert [(cell["class_name"], cell["predicted_class"]) for cell in read["confusion"]] == [
        (FOX, FOX),
        ("class 997", DOG),
    ]
    last = http.get(f"/datasets/{dataset_id}/contact-sheet.png?first_class=990&columns=2")
    assert Image.open(io.BytesIO(last.content)).size == sheet_size(10, 2)


def test_the_contact_sheet_shows_a_row_for_each_class(http: httpx.Client) -> None:
    dataset_id = create(http)
    add(http, dataset_id, FOX, "train", [red(1), red(2, 80), red(3, 100), red(4, 120)])
    add(http, dataset_id, DOG, "test", [blue(5)])
    answer = http.get(f"/datasets/{dataset_id}/contact-sheet.png?columns=3")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    sheet = Image.open(io.BytesIO(answer.content))
    sheet.load()
    assert sheet.size == sheet_size(3, 3)
    assert http.get(f"/datasets/{dataset_id}/contact-sheet.png?columns=3").content == answer.content
    beyond = http.get(f"/datasets/{dataset_id}/contact-sheet.png?first_class=3")
    assert (beyond.status_code, beyond.json()["code"]) == (422, "class_not_found")


def test_a_client_that_leaves_stops_its_report_and_the_next_one_goes_on(node: Node, clip: ColourClip) -> None:
    dataset_id = create(node.http)
    add(node.http, dataset_id, FOX, "train", [red(seed) for seed in range(20)])
    report(node.http, dataset_id, max_images=5)
    clip.gate.clear()
    clip.is_stepping.clear()
    left = threading.Event()
    with asking(node.http, "GET", f"/datasets/{dataset_id}/report"):
        assert clip.is_stepping.wait(PATIENCE_S)
        clip.requests[0].future.add_done_callback(lambda _: left.set())
    assert left.wait(PATIENCE_S)
    assert clip.requests[0].future.cancelled()
    clip.gate.set()
    assert report(node.http, dataset_id)["num_judged"] == 20


def test_reports_beyond_two_at_a_time_are_told_to_come_later(node: Node, clip: ColourClip) -> None:
    dataset_id = create(node.http)
    add(node.http, dataset_id, FOX, "train", [red(1)])
    clip.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(node.http.get, f"/datasets/{dataset_id}/report") for _ in range(3)]
        # The other two wait for the models; whoever comes third is answered at once.
        refused = next(as_completed(answers, timeout=PATIENCE_S)).result()
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        clip.gate.set()
        assert sorted(answer.result().status_code for answer in answers) == [200, 200, 503]
