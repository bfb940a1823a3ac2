"""The `openai` package, unmodified, against a node."""

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import openai
import pytest
from PIL import Image

from app.schemas.source_images import SAMPLE_PNG
from testing.fake_models import BROKEN_PROMPT
from testing.node import Node
from testing.waiting import PATIENCE_S, wait_until
from tests.compat.conftest import Guarded

PNG_URI = f"data:image/png;base64,{SAMPLE_PNG}"


@contextmanager
def client_of(node: Node, key: str = "none") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{node.http.base_url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def client(shared_node: Node) -> Iterator[openai.OpenAI]:
    with client_of(shared_node) as client:
        yield client


def native(node: Node, **changes: object) -> list[bytes]:
    body = {"prompt": "a red fox", "num_inference_steps": 2, "seed": 42, "response_format": "b64_json", **changes}
    answer = node.http.post("/generate", json=body).raise_for_status().json()
    return [base64.b64decode(image["b64_json"]) for image in answer["images"]]


def files(answer: openai.types.ImagesResponse) -> list[bytes]:
    return [base64.b64decode(image.b64_json or "") for image in answer.data or []]


def test_the_images_are_those_of_the_native_route(client: openai.OpenAI, shared_node: Node) -> None:
    answer = client.images.generate(
        prompt="a red fox", n=3, size="auto", extra_body={"seed": 42, "steps": 2, "a_field_of_theirs": {"x": 1}}
    )
    assert files(answer) == native(shared_node, num_images_per_prompt=3)
    assert (answer.size, answer.output_format, answer.background) == ("64x64", "png", "opaque")
    assert answer.created > 1_700_000_000
    other = {"seed": 7, "num_inference_steps": 3, "negative_prompt": "blurry", "guidance_scale": 2.5}
    answer = client.images.generate(prompt="a dog", size="64x128", output_format="webp", extra_body=other)
    assert files(answer) == native(shared_node, prompt="a dog", width=64, height=128, output_format="webp", **other)


def test_a_size_that_is_not_drawn_is_mapped_and_told(client: openai.OpenAI) -> None:
    raw = client.images.with_raw_response.generate(
        prompt="a fox",
        model="dall-e-3",
        size="1536x1024",
        quality="hd",
        style="vivid",
        response_format="b64_json",
        user="u",
        extra_body={"steps": 1},
    )
    answer = raw.parse()
    assert answer.size == "192x128"
    with Image.open(io.BytesIO(files(answer)[0])) as image:
        assert image.size == (192, 128)
    codes = raw.headers["x-foxhound-warning"].split(", ")
    assert sorted(codes) == ["field_not_used", "field_not_used", "size_mapped"]
    assert "The size is 192x128" in raw.headers["warning"]
    assert raw.headers["warning"].startswith('299 foxhound "')
    exact = client.images.with_raw_response.generate(prompt="a fox", size="128x128", extra_body={"steps": 1})
    assert "warning" not in exact.headers


def test_a_url_is_absolute_and_leads_to_the_image(client: openai.OpenAI, shared_node: Node) -> None:
    answer = client.images.generate(prompt="a red fox", response_format="url", extra_body={"seed": 42, "steps": 2})
    [image] = answer.data or []
    assert image.url is not None
    assert image.url.startswith(str(shared_node.http.base_url))
    assert shared_node.http.get(image.url).content == native(shared_node)[0]


def test_a_stream_ends_with_the_images(client: openai.OpenAI, shared_node: Node) -> None:
    stream = client.images.generate(
        prompt="a red fox", stream=True, partial_images=2, extra_body={"seed": 42, "steps": 2}
    )
    *partial, event = stream
    assert 1 <= len(partial) <= 2, "a preview that the next one overtakes is left out"
    for index, shown in enumerate(partial):
        assert shown.type == "image_generation.partial_image"
        assert shown.partial_image_index == index
        assert Image.open(io.BytesIO(base64.b64decode(shown.b64_json))).size == (8, 8)
    assert base64.b64decode(event.b64_json) == native(shared_node)[0]
    assert (event.size, event.output_format, event.background) == ("64x64", "png", "opaque")
    assert event.type == "image_generation.completed"
    assert event.usage.total_tokens == 0
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert "x-foxhound-warning" not in stream.response.headers


def test_an_error_in_a_stream_is_the_clients_own_exception(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="The model failed on this request"):
        list(client.images.generate(prompt=BROKEN_PROMPT, stream=True, extra_body={"steps": 2}))


def test_the_models_are_listed_and_read(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["demo", "clip"]
    assert client.models.retrieve("clip") == models[1]
    with pytest.raises(openai.NotFoundError, match="There is no such model"):
        client.models.retrieve("gpt-image-1")


def test_embeddings_of_texts_are_the_same_in_both_encodings(client: openai.OpenAI) -> None:
    texts = ["a fox", "a dog", "a fox"]
    as_base64 = client.embeddings.create(model="clip", input=texts).data  # the package asks for base64 by itself
    as_floats = client.embeddings.create(model="clip", input=texts, encoding_format="float").data
    assert [item.index for item in as_base64] == [0, 1, 2]
    assert [item.embedding for item in as_base64] == [item.embedding for item in as_floats]
    assert as_base64[0].embedding == as_base64[2].embedding != as_base64[1].embedding
    assert np.linalg.norm(as_base64[0].embedding) == pytest.approx(1)
    [one] = client.embeddings.create(model="clip", input="a fox", dimensions=4).data
    assert one.embedding == as_base64[0].embedding
    many = client.embeddings.create(model="clip", input=[f"text {i}" for i in range(600)]).data
    assert len(many) == 600


def test_embeddings_of_images_are_of_data_uris(client: openai.OpenAI) -> None:
    extra = {"modality": "image"}
    answer = client.embeddings.create(model="any", input=[PNG_URI, SAMPLE_PNG], extra_body=extra)
    assert [item.embedding for item in answer.data] == [[0.5] * 4] * 2
    for text, told in (
        ("http://127.0.0.1/fox.png", "fetches no URLs"),
        ("data:image/png,abc", "must be in base64"),
        ("data:image/png;base64,!!", "Send the image in base64"),
        (f"data:image/png;base64,{base64.b64encode(b'GIF89a').decode()}", "not a PNG, JPEG or WebP"),
    ):
        with pytest.raises(openai.APIStatusError, match=told) as refusal:
            client.embeddings.create(model="clip", input=["data:;base64," + SAMPLE_PNG, text], extra_body=extra)
        assert refusal.value.status_code in (415, 422)
        assert refusal.value.param == "input.1"


@pytest.mark.parametrize(
    ("arguments", "param", "told"),
    [
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"n": 11}, "n", "at most 10"),
        ({"size": "big"}, "size", "auto, or a size"),
        ({"response_format": "png"}, "response_format", "b64_json"),
        ({"extra_body": {"seed": -1}}, "seed", "at least 0"),
        ({"extra_body": {"steps": 151}}, "steps", "at most 150"),
        ({"extra_body": {"seed": 2**53 - 1}, "n": 2}, "seed", "must be at most"),
    ],
)
def test_bad_input_is_the_clients_own_exception(client: openai.OpenAI, arguments: dict, param: str, told: str) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=told) as refusal:
        client.images.generate(**{"prompt": "a fox", **arguments})
    assert refusal.value.param == param
    assert refusal.value.type == "invalid_request_error"
    assert refusal.value.code
    assert refusal.value.request_id


def test_bad_embeddings_are_the_clients_own_exception(client: openai.OpenAI) -> None:
    for arguments, told in (
        ({"input": [1, 2, 3]}, "Token ids"),
        ({"input": []}, "at least 1 item"),
        ({"input": "a fox", "dimensions": 256}, "4 dimensions"),
        ({"input": "x" * 20_001}, "at most 20000 characters"),
        ({"input": [PNG_URI] * 33, "extra_body": {"modality": "image"}}, "at most 32 images"),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=told):
            client.embeddings.create(model="clip", **arguments)


def picture(*, transparent: bool = False) -> bytes:
    """A picture of random colours whose left half is transparent, or opaque."""
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 4), np.uint8)
    pixels[..., 3] = 255
    if transparent:
        pixels[:, :32, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def source(data: bytes) -> dict[str, str]:
    return {"image_b64": base64.b64encode(data).decode()}


def left_half() -> dict[str, str]:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:, :32] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return source(buffer.getvalue())


EXTRA = {"seed": 42, "num_inference_steps": 4}


def test_an_edit_is_the_native_image_with_an_init_image(client: openai.OpenAI, shared_node: Node) -> None:
    whole = client.images.edit(image=("fox.png", picture()), prompt="a red fox", n=2, size="64x64", extra_body=EXTRA)
    expected = native(
        shared_node, num_inference_steps=4, init_image=source(picture()), strength=0.75, num_images_per_prompt=2
    )
    assert files(whole) == expected
    answer = client.images.edit(
        image=[("fox.png", picture()), ("dog.png", picture())],
        prompt="a red fox",
        response_format="b64_json",
        extra_body={**EXTRA, "strength": 0.5, "negative_prompt": "snow", "guidance_scale": 3},
    )
    changes = {"strength": 0.5, "negative_prompt": "snow", "guidance_scale": 3}
    assert files(answer) == native(shared_node, num_inference_steps=4, init_image=source(picture()), **changes)
    assert "first image" in answer.model_dump()["warnings"][0]["detail"]


@pytest.mark.parametrize("is_own", [False, True], ids=["of the mask", "of the image"])
def test_transparent_pixels_are_repainted(client: openai.OpenAI, shared_node: Node, is_own: bool) -> None:
    image = ("fox.png", picture(transparent=is_own))
    mask = openai.omit if is_own else ("mask.png", picture(transparent=True))
    answer = client.images.edit(image=image, mask=mask, prompt="a red fox", extra_body=EXTRA)
    init = source(picture(transparent=is_own))
    assert files(answer) == native(shared_node, num_inference_steps=4, init_image=init, mask=left_half(), strength=1.0)
    with Image.open(io.BytesIO(files(answer)[0])) as drawn, Image.open(io.BytesIO(picture())) as before:
        kept = np.asarray(before.convert("RGB"))[:, 32:]
        assert (np.asarray(drawn)[:, 32:] == kept).all()


def test_an_edit_can_be_streamed(client: openai.OpenAI) -> None:
    with client.images.edit(image=("a.png", picture()), prompt="a fox", stream=True, extra_body=EXTRA) as events:
        [event] = list(events)
    assert event.type == "image_edit.completed"
    assert base64.b64decode(event.b64_json).startswith(b"\x89PNG")


def test_a_variation_is_drawn_without_guidance_in_the_proportions_of_the_image(
    client: openai.OpenAI, shared_node: Node
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (100, 200, 3), np.uint8)).save(buffer, "jpeg")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        answer = client.images.create_variation(image=("wide.jpg", buffer.getvalue()), n=1, extra_body=EXTRA)
    assert answer.size == "128x64"
    expected = native(
        shared_node,
        prompt="a picture",
        guidance_scale=1.0,
        num_inference_steps=4,
        init_image=source(buffer.getvalue()),
        strength=0.6,
        width=128,
        height=64,
    )
    assert files(answer) == expected


def test_bad_edits_are_the_clients_own_exception(client: openai.OpenAI) -> None:
    good = ("fox.png", picture())
    small = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(small, "png")
    for arguments, told, param in (
        ({"image": good, "mask": good}, "no transparent pixels", "mask"),
        ({"image": good, "mask": ("m.png", small.getvalue())}, "64 x 64", "mask"),
        ({"image": ("fox.png", picture()[:300])}, "damaged", "image"),
        ({"image": good, "extra_body": {"strength": 2}}, "at most 1", "strength"),
        ({"image": good, "extra_body": {"strength": 0.2, "steps": 2}}, "less than one step", "strength"),
        ({"image": good, "n": 11}, "at most 10", "n"),
    ):
        with pytest.raises(openai.UnprocessableEntityError, match=told) as refusal:
            client.images.edit(prompt="a fox", **arguments)
        assert refusal.value.param == param
    with pytest.raises(openai.APIStatusError, match="not a PNG, JPEG or WebP") as unsupported:
        client.images.edit(prompt="a fox", image=("fox.gif", b"GIF89a"))
    assert unsupported.value.status_code == 415


def test_every_error_under_v1_has_their_form(shared_node: Node) -> None:
    http = shared_node.http
    answers = [
        http.get("/v1/nothing"),
        http.put("/v1/models"),
        http.post("/v1/images/generations", content=b"{", headers={"Content-Type": "application/json"}),
        http.post("/v1/images/generations", content=b"{}", headers={"Content-Type": "text/plain"}),
        http.post("/v1/images/generations", json={"prompt": "x" * 300_000}),
    ]
    assert [answer.status_code for answer in answers] == [404, 405, 400, 415, 413]
    for answer in answers:
        assert answer.headers["content-type"] == "application/json"
        assert set(answer.json()["error"]) == {"message", "type", "param", "code", "request_id"}
    assert answers[1].headers["allow"] == "GET, HEAD"
    assert http.get("/nothing").headers["content-type"] == "application/problem+json"
    assert http.head("/v1/nothing").status_code == 404


def test_keys(guarded: Guarded) -> None:
    node = guarded.node
    with client_of(node, guarded.key) as client:
        assert client.images.generate(prompt="a fox", extra_body={"steps": 1}).data
    with client_of(node, guarded.reader) as client:
        assert len(client.models.list().data) == 2
        with pytest.raises(openai.PermissionDeniedError, match="scope generate"):
            client.images.generate(prompt="a fox")
    with client_of(node, "fxh_wrong") as client, pytest.raises(openai.AuthenticationError) as refusal:
        client.images.generate(prompt="a fox")
    assert refusal.value.code == "key_invalid"
    answer = node.http.get("/v1/models", headers={"Authorization": ""})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_required")


def test_open_webui_sends_an_empty_authorization(shared_node: Node) -> None:
    """Its OpenAI engine asks for base64 and sends the header where no key is set."""
    body = {"model": "demo", "prompt": "a fox", "n": 1, "size": "512x512", "response_format": "b64_json", "steps": 1}
    answer = shared_node.http.post("/v1/images/generations", json=body, headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json()["size"] == "192x192"


def test_a_client_that_leaves_frees_its_rows(node: Node) -> None:
    diffusion = node.models.diffusion
    diffusion.gate.clear()
    with client_of(node) as client:
        stream = client.images.generate(prompt="a fox", n=2, stream=True, extra_body={"steps": 50})
        assert diffusion.stepping.wait(PATIENCE_S)
        left = threading.Event()
        diffusion.running[0].future.add_done_callback(lambda _: left.set())
        stream.close()
        assert left.wait(PATIENCE_S)
    diffusion.gate.set()
    wait_until(lambda: not any(node.models.engine.in_flight().values()))
    assert diffusion.num_steps < 100
    assert node.http.get("/generations").json()["items"] == []
