"""`huggingface_hub.InferenceClient`, unmodified, against a node."""

import base64
import io

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from app.schemas.source_images import SAMPLE_PNG
from testing.node import Node
from testing.waiting import PATIENCE_S
from tests.compat.conftest import Guarded

PNG = base64.b64decode(SAMPLE_PNG)


def client_of(node: Node, task: str, key: str | None = None) -> InferenceClient:
    return InferenceClient(model=f"{str(node.http.base_url).rstrip('/')}/hf/{task}", token=key, timeout=PATIENCE_S)


def test_the_image_is_that_of_the_native_route(shared_node: Node) -> None:
    settings = {"negative_prompt": "blurry", "num_inference_steps": 3, "guidance_scale": 2.5, "seed": 7}
    native = {"prompt": "a red fox", "width": 64, "height": 128, "scheduler": "euler_a", **settings}
    expected = shared_node.http.post("/generate/image", json=native).raise_for_status().content
    sent = {"width": 64, "height": 128, "scheduler": "EulerAncestralDiscreteScheduler", **settings}
    answer = shared_node.http.post(
        "/hf/text-to-image", json={"inputs": "a red fox", "parameters": sent}, headers={"Accept": "image/png"}
    )
    assert answer.content == expected
    assert (answer.headers["content-type"], answer.headers["x-foxhound-seed"]) == ("image/png", "7")
    client = client_of(shared_node, "text-to-image")
    image = client.text_to_image("a red fox", extra_body={"a_field_of_theirs": 1}, **sent)
    with Image.open(io.BytesIO(expected)) as native_image:
        assert image.tobytes() == native_image.tobytes()
    assert client.text_to_image("a fox").size == (64, 64)


def test_what_cannot_be_honoured_is_told(shared_node: Node) -> None:
    parameters = {"width": 512, "height": 512, "scheduler": "HeunDiscreteScheduler", "num_inference_steps": 1}
    answer = shared_node.http.post(
        "/hf/text-to-image", json={"inputs": "a fox", "parameters": parameters}, headers={"Accept": "image/webp"}
    )
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("WEBP", (192, 192))
    assert answer.headers["x-foxhound-warning"] == "size_mapped, scheduler_not_used"


def test_raw_bytes_and_json_are_classified(shared_node: Node) -> None:
    client = client_of(shared_node, "image-classification")
    raw = client.image_classification(PNG)
    assert [(one.label, round(one.score, 3)) for one in raw] == [("fox", 0.7), ("dog", 0.2), ("cat", 0.1)]
    [best] = client.image_classification(PNG, top_k=1, function_to_apply="softmax")
    assert (best.label, round(best.score, 3)) == ("fox", 0.7)


def test_labels_of_the_request_are_scored(shared_node: Node) -> None:
    client = client_of(shared_node, "zero-shot-image-classification")
    found = client.zero_shot_image_classification(
        PNG, candidate_labels=["fox", "retriever"], hypothesis_template="a photo of {}"
    )
    native = {"image_b64": SAMPLE_PNG, "labels": ["fox", "retriever"], "template": "a photo of {}"}
    scores = shared_node.http.post("/clip-score", json=native).json()["scores"]
    expected = sorted(((one["label"], one["probability"]) for one in scores), key=lambda one: -one[1])
    assert [(one.label, one.score) for one in found] == expected
    assert found[0].label == "retriever"


def test_an_image_that_is_changed_is_the_native_one(shared_node: Node) -> None:
    client = client_of(shared_node, "image-to-image")
    settings = {"prompt": "a red fox", "num_inference_steps": 4, "seed": 42, "strength": 0.5}
    found = client.image_to_image(PNG, negative_prompt="snow", **settings)
    native = {"negative_prompt": "snow", **settings, "init_image": {"image_b64": SAMPLE_PNG}}
    expected = shared_node.http.post("/generate/image", json=native)
    assert expected.status_code == 200, expected.text
    with Image.open(io.BytesIO(expected.content)) as image:
        assert np.asarray(found).tobytes() == np.asarray(image).tobytes()
    wide = client.image_to_image(PNG, prompt="a fox", num_inference_steps=2, target_size={"width": 96, "height": 64})
    assert wide.size == (96, 64)


def test_raw_bytes_are_changed_without_a_prompt(shared_node: Node) -> None:
    answer = shared_node.http.post("/hf/image-to-image", content=PNG)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"


def test_health_and_info(shared_node: Node) -> None:
    for task, is_there in (("", True), ("/text-to-image", True), ("/text-to-speech", False)):
        url = f"{str(shared_node.http.base_url).rstrip('/')}/hf{task}"
        client = InferenceClient(model=url, provider="hf-inference")
        assert client.health_check() is is_there
        if is_there:
            assert client.get_endpoint_info()["model_id"] == "demo"


def test_bad_input_is_the_clients_own_exception(shared_node: Node) -> None:
    drawing, classifying = client_of(shared_node, "text-to-image"), client_of(shared_node, "image-classification")
    labels = client_of(shared_node, "zero-shot-image-classification")
    changing = client_of(shared_node, "image-to-image")
    calls = [
        (lambda: drawing.text_to_image("a fox", num_inference_steps=151), 422, "at most 150"),
        (lambda: drawing.text_to_image("a fox", seed=-1), 422, "parameters/seed"),
        (lambda: drawing.text_to_image(" "), 422, "visible character"),
        (lambda: classifying.image_classification(b"GIF89a"), 415, "not a PNG, JPEG or WebP"),
        (lambda: classifying.image_classification(PNG, function_to_apply="sigmoid"), 422, "gives probabilities"),
        (lambda: labels.zero_shot_image_classification(PNG, candidate_labels=["a", "A"]), 422, "all be different"),
        (
            lambda: labels.zero_shot_image_classification(PNG, candidate_labels=["a", "b"], hypothesis_template="x"),
            422,
            "hypothesis_template",
        ),
        (lambda: changing.image_to_image(PNG, prompt="a", strength=2), 422, "parameters/strength"),
        (lambda: changing.image_to_image(PNG[:60], prompt="a"), 422, "damaged"),
        (lambda: changing.image_to_image(b"GIF89a", prompt="a"), 415, "not a PNG, JPEG or WebP"),
        (lambda: client_of(shared_node, "image-classification?model=lost").image_classification(PNG), 422, "no model"),
    ]
    for call, status, told in calls:
        with pytest.raises(HfHubHTTPError, match=told) as refusal:
            call()
        assert refusal.value.response.status_code == status
    assert set(shared_node.http.get("/hf/nothing").json()) == {"error", "code", "request_id"}


def test_keys(guarded: Guarded) -> None:
    node = guarded.node
    assert client_of(node, "text-to-image", guarded.key).text_to_image("a fox", num_inference_steps=1)
    assert client_of(node, "image-classification", guarded.key).image_classification(PNG)
    for key, status in ((guarded.reader, 403), (None, 401)):
        with pytest.raises(HfHubHTTPError, match="API key") as refusal:
            client_of(node, "text-to-image", key).text_to_image("a fox")
        assert refusal.value.response.status_code == status
