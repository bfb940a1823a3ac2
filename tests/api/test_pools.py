"""Work that takes long has threads of its own: however much of it there is, everything else is answered."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest
from PIL import Image

from app.services.datasets.uploads import MAX_AT_ONCE
from app.services.process.thread_pools import NUM_LARGE_PICTURES
from app.storage.image_formats import decode_image
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.uploads import create_empty, picture, upload
from testing.waiting import PATIENCE_S

# A picture of this size waits for the gate.
SLOW_SIZE = (33, 21)
# So does one of this size, which is large.
LARGE_SLOW_SIZE = (1_100, 1_000)


class GatedDecoder:
    """Decodes as always, but keeps pictures of one size until its gate opens.

    Attributes:
        gate: Lets them go on.
        num_held: Pictures that have come to the gate.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.held = threading.Semaphore(0)

    def __call__(self, data: bytes, *, max_bytes: int, max_pixels: int) -> Image.Image:
        image = decode_image(data, max_bytes=max_bytes, max_pixels=max_pixels)
        if image.size in (SLOW_SIZE, LARGE_SLOW_SIZE):
            self.held.release()
            self.gate.wait(6 * PATIENCE_S)
        return image


@pytest.fixture
def decoder() -> GatedDecoder:
    return GatedDecoder()


@pytest.fixture
def gated_node(tmp_path: Path, database_url: str, decoder: GatedDecoder) -> Iterator[Node]:
    with serve(make_settings(tmp_path / "data", database_url), FakeModels(), decode=decoder) as node:
        yield node
        decoder.gate.set()


def client_of(node: Node) -> httpx.Client:
    return httpx.Client(base_url=node.http.base_url, timeout=6 * PATIENCE_S)


def send(node: Node, dataset_id: str, file: bytes) -> httpx.Response:
    with client_of(node) as http:
        return upload(http, dataset_id, [file])


def send_slow(node: Node, dataset_id: str, seed: int) -> httpx.Response:
    return send(node, dataset_id, picture(seed, size=SLOW_SIZE))


def classify(node: Node, files: list[bytes]) -> httpx.Response:
    with client_of(node) as http:
        return http.post("/classify", files=[("images", file) for file in files])


def test_any_number_of_uploads_that_stand_still_keep_nobody_else_waiting(
    gated_node: Node, decoder: GatedDecoder
) -> None:
    node, dataset_id = gated_node, create_empty(gated_node.http)["id"]
    with ThreadPoolExecutor(MAX_AT_ONCE) as clients:
        sent = [clients.submit(send_slow, node, dataset_id, seed) for seed in range(24)]
        assert decoder.held.acquire(timeout=PATIENCE_S)
        with httpx.Client(base_url=node.http.base_url, timeout=PATIENCE_S) as http:
            for _ in range(3):
                assert http.get("/livez").status_code == 200
                assert http.get("/readyz").status_code == 200
                assert http.get("/datasets").json()["items"][0]["id"] == dataset_id
                made = http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1})
                assert made.status_code == 200
                assert http.post("/classify", json={"image_id": made.json()["images"][0]["id"]}).status_code == 200
                assert http.post("/classify", files={"image": picture(1)}).status_code == 200
            assert not any(answer.done() for answer in sent)
        decoder.gate.set()
        assert [answer.result().status_code for answer in sent] == [201] * 24


def test_small_pictures_are_uploaded_and_classified_while_large_ones_wait(
    gated_node: Node, decoder: GatedDecoder
) -> None:
    node, dataset_id = gated_node, create_empty(gated_node.http)["id"]
    large = [picture(seed, size=LARGE_SLOW_SIZE) for seed in range(4)]
    with ThreadPoolExecutor(8) as clients:
        uploads = [clients.submit(send, node, dataset_id, file) for file in large]
        forms = [clients.submit(classify, node, [file, picture(0)]) for file in large]
        for _ in range(2 * NUM_LARGE_PICTURES):  # all threads of either kind
            assert decoder.held.acquire(timeout=PATIENCE_S)
        assert upload(node.http, dataset_id, [picture(7)]).status_code == 201
        assert node.http.post("/classify", files={"image": picture(1)}).status_code == 200
        assert node.http.post("/clip-score", files={"image": picture(1)}, data={"labels": "fox"}).status_code == 200
        assert not any(answer.done() for answer in [*uploads, *forms])
        decoder.gate.set()
        assert {answer.result().status_code for answer in uploads} == {201}
        assert {answer.result().status_code for answer in forms} == {200}


def test_more_uploads_than_are_taken_at_once_are_refused_before_they_are_read(
    gated_node: Node, decoder: GatedDecoder
) -> None:
    node, dataset_id = gated_node, create_empty(gated_node.http)["id"]
    num_clients = MAX_AT_ONCE + 4
    with ThreadPoolExecutor(num_clients) as clients:
        sent = [clients.submit(send_slow, node, dataset_id, seed) for seed in range(num_clients)]
        # Those that are refused come back while all others stand still.
        refused = {answer for answer in sent if _comes_back(answer, sent, num_clients - MAX_AT_ONCE)}
        assert len(refused) == num_clients - MAX_AT_ONCE
        for answer in refused:
            assert (answer.result().status_code, answer.result().json()["code"]) == (503, "queue_full")
            assert int(answer.result().headers["retry-after"]) >= 1
        decoder.gate.set()
        assert {answer.result().status_code for answer in sent if answer not in refused} == {201}


def _comes_back(answer: object, sent: list, num_expected: int) -> bool:
    """Wait until so many answers are there, then tell whether this is one of them."""
    pending = set(sent)
    while sum(one.done() for one in sent) < num_expected:
        done, pending = wait(pending, timeout=PATIENCE_S, return_when="FIRST_COMPLETED")
        assert done, "no answer came"
    return answer.done()  # type: ignore[attr-defined]


def test_a_form_full_of_slow_pictures_takes_turns_with_others(gated_node: Node, decoder: GatedDecoder) -> None:
    node = gated_node
    slow = [("images", picture(seed, size=SLOW_SIZE)) for seed in range(32)]
    with ThreadPoolExecutor(1) as clients, client_of(node) as theirs, client_of(node) as http:
        form = clients.submit(theirs.post, "/classify", files=slow)
        assert decoder.held.acquire(timeout=PATIENCE_S)
        answer = ThreadPoolExecutor(1).submit(http.post, "/classify", files={"image": picture(1)})
        decoder.gate.set()
        assert answer.result().status_code == 200
        assert form.result().status_code == 200
