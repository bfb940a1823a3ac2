"""POST /clip-score and POST /classify: images in all the ways they may come."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.db.session import Database
from app.node.combined import combined_facts
from app.storage.image_formats import decode_image
from app.storage.layout import DataFolder
from app.training.probe import LinearProbe
from testing.fake_models import NUM_FEATURES, FakeModels, describe
from testing.node import Node, make_settings, serve
from testing.trained_models import add_model


def picture(colour: str = "red", image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, image_format)
    return buffer.getvalue()


@pytest.fixture
def http(shared_node: Node) -> httpx.Client:
    return shared_node.http


@pytest.fixture
def stored(http: httpx.Client) -> list[str]:
    """Ids of a fox and a dog that are stored."""
    prompts = ("a fox", "a dog")
    answers = [http.post("/generate", json={"prompt": prompt, "num_inference_steps": 1}) for prompt in prompts]
    return [answer.json()["images"][0]["id"] for answer in answers]


def test_a_file_is_scored_against_labels_in_their_order(http: httpx.Client) -> None:
    answer = http.post("/clip-score", files={"image": picture()}, data={"labels": ["a dog", "a red fox"]})
    read = answer.json()
    assert answer.status_code == 200
    assert read["model"] == {"id": None, "name": "demo", "revision": "fake"}
    assert [score["label"] for score in read["scores"]] == ["a dog", "a red fox"]
    assert sum(score["probability"] for score in read["scores"]) == pytest.approx(1)
    assert [score["logit"] for score in read["scores"]] == [5.0, 9.0]


def test_the_template_wraps_the_label_but_is_not_answered(http: httpx.Client) -> None:
    form = {"labels": ["fox"], "template": "a {} here"}
    scores = http.post("/clip-score", files={"image": picture()}, data=form).json()["scores"]
    assert scores == [{"label": "fox", "probability": 1.0, "logit": float(len("a fox here")), "cosine": 0.01}]


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_an_image_may_come_as_a_file_in_base64_or_by_its_id(http: httpx.Client, image_format: str) -> None:
    data = picture("red", image_format)
    by_file = http.post("/classify", files={"image": ("wrong.txt", data, "text/plain")})
    by_base64 = http.post("/classify", json={"image_b64": base64.b64encode(data).decode()})
    assert by_file.json() == by_base64.json()
    assert by_file.json()["predictions"][0] == {"label": "fox", "index": 0, "probability": pytest.approx(0.7)}


def test_predictions_are_ordered_and_cut_to_top_k_and_to_the_classes(http: httpx.Client) -> None:
    def labels(**form: str) -> list[str]:
        answer = http.post("/classify", files={"image": picture("blue")}, data=form)
        return [prediction["label"] for prediction in answer.json()["predictions"]]

    assert labels() == ["dog", "fox", "cat"]
    assert labels(top_k="1") == ["dog"]
    assert labels(top_k="1000") == ["dog", "fox", "cat"]


def test_several_images_are_answered_in_their_order(http: httpx.Client, stored: list[str]) -> None:
    by_id = http.post("/classify", json={"image_ids": stored, "top_k": 1}).json()["results"]
    assert [(result["image_id"], result["predictions"][0]["label"]) for result in by_id] == [
        (stored[0], "fox"),
        (stored[1], "dog"),
    ]
    files = [("images", picture("blue")), ("images", picture("red"))]
    by_file = http.post("/classify", files=files).json()["results"]
    assert [result["predictions"][0]["label"] for result in by_file] == ["dog", "fox"]
    scored = http.post("/clip-score", json={"image_ids": stored, "labels": ["a"]}).json()["results"]
    assert [result["image_id"] for result in scored] == stored


def test_one_image_in_images_is_answered_as_results(http: httpx.Client) -> None:
    assert len(http.post("/classify", files=[("images", picture())]).json()["results"]) == 1


def test_a_form_has_one_image_or_several(http: httpx.Client) -> None:
    answer = http.post("/classify", files=[("image", picture()), ("images", picture())])
    assert (answer.status_code, answer.json()["code"]) == (422, "one_image_source")


def test_one_bad_image_refuses_the_call_and_is_named(http: httpx.Client, stored: list[str]) -> None:
    files = [("images", picture()), ("images", picture()[:60])]
    problem = http.post("/classify", files=files).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("corrupt_image", "#/images/1")
    problem = http.post("/classify", json={"image_ids": [stored[0], "nope"]}).json()
    assert problem["errors"] == [
        {"pointer": "#/image_ids/1", "detail": "There is no image with this id.", "code": "image_not_found"}
    ]


def test_the_pack_by_its_name_is_the_pretrained_classifier(http: httpx.Client) -> None:
    answers = [http.post("/classify", files={"image": picture()}, data=form) for form in ({}, {"model": "demo"})]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize("labels", [["fox,dog"], ["fox"]])
def test_one_label_alone_is_warned_of(shared_node: Node, labels: list[str]) -> None:
    form: Any = [("image", ("a.png", picture(), "image/png")), *(("labels", (None, label)) for label in labels)]
    one = shared_node.http.post("/clip-score", files=form).json()
    assert one["scores"][0]["probability"] == 1.0
    assert [warning["code"] for warning in one["warnings"]] == ["single_label"]
    assert ("comma" in one["warnings"][0]["detail"]) == ("," in labels[0])
    encoded = base64.b64encode(picture()).decode()
    by_json = shared_node.http.post("/clip-score", json={"labels": labels, "image_b64": encoded}).json()
    assert by_json["warnings"] == one["warnings"]
    two = shared_node.http.post("/clip-score", json={"labels": [*labels, "cat"], "image_b64": encoded}).json()
    assert two["warnings"] == []


@pytest.mark.parametrize("text", ['["fox","dog"]', ' [ "fox" ] ', "[]", '["fo\\u0078", ["dog"]]'])
def test_a_json_array_in_a_form_is_no_label(shared_node: Node, text: str) -> None:
    form: Any = [("image", ("a.png", picture(), "image/png")), ("labels", (None, text))]
    answer = shared_node.http.post("/clip-score", files=form)
    assert answer.status_code == 422
    fault = answer.json()["errors"][0]
    assert (fault["pointer"], fault["code"]) == ("#/labels", "json_in_form")
    assert "Repeat the field" in fault["detail"]


def test_a_label_in_brackets_is_a_label(shared_node: Node) -> None:
    form: Any = [
        ("image", ("a.png", picture(), "image/png")),
        *(("labels", (None, text)) for text in ("[fox]", "[dog")),
    ]
    assert shared_node.http.post("/clip-score", files=form).status_code == 200


def test_a_picture_is_decoded_once_for_all_backbones_of_a_model(tmp_path: Path, database_url: str) -> None:
    decoded = []

    def decode(data: bytes, **bounds: int) -> Image.Image:
        decoded.append(len(data))
        return decode_image(data, **bounds)

    facts = [describe(name).facts for name in ("resnet18", "clip")]
    of_both = combined_facts("resnet18+clip", facts)
    with serve(make_settings(tmp_path / "data", database_url), FakeModels(), decode=decode) as node:
        db = Database(database_url)
        add_model(
            db,
            DataFolder(tmp_path / "data"),
            ["fox", "dog"],
            name="both",
            backbone=of_both.name,
            backbone_sha256=of_both.weights_sha256,
            lineage={"backbone": of_both.to_json()},
            probe=LinearProbe(np.zeros((2, NUM_FEATURES + 4), np.float32), np.zeros(2, np.float32)),
        )
        db.close()
        data = picture()
        answer = node.http.post("/classify", files={"image": data}, data={"model": "both"})
        assert answer.status_code == 200, answer.text
        assert decoded == [len(data)]
