"""`explain` of POST /classify: a heat map of the most probable class, for one image and one backbone."""

import base64
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.db.session import Database
from app.node.combined import combined_facts
from app.storage.layout import DataFolder
from testing.fake_models import FakeSource, describe
from testing.node import Node
from testing.trained_models import add_model

LABELS = ("fox", "dog", "cat")
Add = Callable[..., str]


@pytest.fixture
def add(db: Database, node: Node) -> Add:
    folder = DataFolder(node.settings.data_dir)

    def add(**columns: Any) -> str:
        return add_model(db, folder, ["fox", "dog"], **columns)

    return add


@pytest.fixture
def photo(node: Node) -> FakeSource:
    source = FakeSource(describe("photo", sha256="a" * 64, classes=LABELS))
    node.models.backbones["photo"] = source
    node.models.modules.shas["photo"] = "a" * 64
    return source


def half_red() -> bytes:
    """A picture whose left half is red and whose right half is black."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, :32, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def classify(http: httpx.Client, **form: str) -> httpx.Response:
    return http.post("/classify", files={"image": half_red()}, data={"explain": "true", **form})


def heat_of(answer: httpx.Response) -> tuple[float, float]:
    """How colourful the left and the right half of the picture are, which is pale where there is no heat."""
    data = base64.b64decode(answer.json()["explanation_png_b64"])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
    assert pixels.shape == (64, 64, 3)
    return float(pixels[:, :28].mean()), float(pixels[:, 36:].mean())


def test_the_red_half_is_why_it_is_a_fox(http: httpx.Client, add: Add) -> None:
    answer = classify(http, model=add())
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"][0]["label"] == "fox"
    left, right = heat_of(answer)
    assert left > 3 * right


def test_json_asks_for_it_too_and_by_default_there_is_none(http: httpx.Client, add: Add) -> None:
    image = {"image_b64": base64.b64encode(half_red()).decode(), "model": add()}
    plain = http.post("/classify", json=image).json()
    explained = http.post("/classify", json={**image, "explain": True}).json()
    assert plain["explanation_png_b64"] is None
    assert explained["predictions"] == plain["predictions"]
    assert explained["explanation_png_b64"] == classify(http, model=image["model"]).json()["explanation_png_b64"]


@pytest.mark.parametrize("model", [{}, {"model": "demo"}, {"model": "photo"}])
def test_pretrained_classifiers_are_explained(http: httpx.Client, photo: FakeSource, model: dict[str, str]) -> None:
    answer = classify(http, **model)
    assert answer.json()["predictions"][0]["label"] == "fox"
    left, right = heat_of(answer)
    assert left > 3 * right


def test_a_module_is_kept_for_the_next_image_and_only_one_is(node: Node, add: Add) -> None:
    model_id, modules = add(), node.models.modules
    for _ in range(2):
        assert classify(node.http, model=model_id).status_code == 200
    assert modules.loads == ["resnet18"]
    classify(node.http)
    classify(node.http, model=model_id)
    assert modules.loads == ["resnet18", None, "resnet18"]


def test_one_image_at_a_time(http: httpx.Client, add: Add) -> None:
    files = [("images", half_red())]
    answer = http.post("/classify", files=files, data={"explain": "true"})
    assert (answer.status_code, answer.json()["code"]) == (422, "explains_one_image")
    assert answer.json()["errors"][0]["pointer"] == "#/explain"
    assert http.post("/classify", files=files, data={"explain": "false"}).status_code == 200


@pytest.mark.parametrize("value", ["1", "on", "yes", ""])
def test_a_form_says_true_or_false(http: httpx.Client, value: str) -> None:
    answer = classify(http, explain=value)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/explain")


def test_several_backbones_are_not_explained(node: Node, add: Add) -> None:
    parts = [describe(name).facts.to_json() for name in ("resnet18", "clip")]
    lineage = {"backbone": {"name": "resnet18+clip", "preprocessing": {"parts": parts}}}
    model_id = add(backbone="resnet18+clip", backbone_sha256=sha256_of_both(), lineage=lineage)
    answer = classify(node.http, model=model_id)
    assert (answer.status_code, answer.json()["code"]) == (422, "combined_backbones")
    assert node.models.modules.loads == []


def sha256_of_both() -> str:
    return combined_facts("resnet18+clip", [describe(name).facts for name in ("resnet18", "clip")]).weights_sha256


def test_weights_that_changed_meanwhile_are_refused(node: Node, add: Add) -> None:
    node.models.modules.shas["resnet18"] = "0" * 64
    answer = classify(node.http, model=add())
    assert (answer.status_code, answer.json()["code"]) == (409, "model_backbone_mismatch")


def test_a_broken_image_is_named(http: httpx.Client) -> None:
    answer = http.post("/classify", files={"image": half_red()[:80]}, data={"explain": "true"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/image")


def test_other_requests_are_answered_while_one_is_explained(node: Node, add: Add) -> None:
    model_id, modules = add(), node.models.modules
    modules.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        explained = threads.submit(classify, node.http, model=model_id)
        assert classify(node.http, model=model_id, explain="false").status_code == 200
        assert not explained.done()
        modules.gate.set()
        assert explained.result().status_code == 200
