"""`nearest` of POST /classify: the training images that look most similar to a trained model's backbone."""

from typing import Any

import httpx
import pytest

from app.db.models import Image
from app.storage.layout import DataFolder
from testing.trained_models import add_model
from testing.uploads import picture
from tests.api.test_jobs import Desk, desk
from tests.api.test_training import made, trained

__all__ = ["desk"]  # a fixture


def ask(http: httpx.Client, model: str, **fields: Any) -> httpx.Response:
    return http.post("/classify", json={"model": model, **fields})


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_a_training_image_is_nearest_to_itself(desk: Desk) -> None:
    http = desk.node.http
    dataset_id = made(desk)
    trained(desk, {"dataset_id": dataset_id, "epochs": 1, "name": "mine"})
    images = http.get(f"/datasets/{dataset_id}/images", params={"split": "train", "limit": 100}).json()["items"]
    known = {image["id"]: image for image in images}
    one = images[0]
    answer = ask(http, "mine", image_id=one["id"], nearest=3).json()
    assert [prediction["label"] for prediction in answer["predictions"]]
    nearest = answer["nearest"]
    assert (nearest["num_compared"], nearest["num_training"]) == (len(images), len(images))
    assert len(nearest["images"]) == 3
    similarities = [image["similarity"] for image in nearest["images"]]
    assert similarities == sorted(similarities, reverse=True)
    first = next(image for image in nearest["images"] if image["image_id"] == one["id"])
    assert first["similarity"] == pytest.approx(similarities[0], abs=1e-5) == pytest.approx(1, abs=1e-5)
    assert first["distance"] == pytest.approx(0, abs=0.01)
    assert all(known[image["image_id"]]["class_name"] == image["label"] for image in nearest["images"])
    assert all(http.get(image["url"]).status_code == 200 for image in nearest["images"])

    files = {"image": ("a.png", picture(1))}
    form = http.post("/classify/files", files=files, data={"model": "mine", "nearest": "20", "explain": "true"}).json()
    assert len(form["nearest"]["images"]) == min(20, len(images))
    assert form["explanation_png_b64"]
    several = ask(http, "mine", image_ids=[one["id"], images[1]["id"]], nearest=1).json()["results"]
    assert [len(result["nearest"]["images"]) for result in several] == [1, 1]
    assert ask(http, "mine", image_id=one["id"]).json()["nearest"] is None

    review = http.patch(f"/datasets/{dataset_id}/images/{one['id']}", json={"review": "rejected"})
    assert review.status_code == 200
    left = ask(http, "mine", image_id=one["id"], nearest=20).json()["nearest"]
    assert left["num_training"] == len(images) - 1
    assert one["id"] not in [image["image_id"] for image in left["images"]]


def test_what_cannot_be_told_is_said(desk: Desk) -> None:
    http = desk.node.http
    dataset_id = made(desk)
    trained(desk, {"dataset_id": dataset_id, "epochs": 1, "name": "mine"})
    folder = DataFolder(desk.node.settings.data_dir)
    untrained = add_model(desk.db, folder, ["fox", "dog"], dataset_id=dataset_id, name="elsewhere")
    image_id = http.get(f"/datasets/{dataset_id}/images").json()["items"][0]["id"]
    refused = ask(http, untrained, image_id=image_id, nearest=3)
    assert code(refused) == (409, "features_not_cached")
    assert "split train" in refused.json()["detail"]
    assert code(http.post("/classify", json={"image_id": image_id, "nearest": 3})) == (422, "no_training_images")
    for wrong in (0, 21, "3", True):
        assert ask(http, "mine", image_id=image_id, nearest=wrong).status_code == 422

    with desk.db.snapshot() as session:
        path = session.get_one(Image, image_id).path
    data = folder.locate(path).read_bytes()
    assert http.delete(f"/datasets/{dataset_id}").status_code == 204
    files = {"image": ("a.png", data)}
    gone = http.post("/classify/files", files=files, data={"model": "mine", "nearest": "3"})
    assert code(gone) == (409, "training_images_gone")
    assert http.post("/classify/files", files=files, data={"model": "mine"}).status_code == 200
