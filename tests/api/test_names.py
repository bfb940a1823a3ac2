"""One rule for names over HTTP: creation, uploads, filters and labels call the same names equal."""

import unicodedata
from typing import Any

import httpx
import pytest

from app.db.models import Dataset
from app.db.session import Database
from testing.uploads import create_empty, picture, upload

VARIANTS = {
    "case": "füchse",
    "NFD": unicodedata.normalize("NFD", "Füchse"),
    "space behind": "Füchse ",
    "no-break space": "\u00a0Füchse",
    "zero-width space": "Fü\u200bchse",
    "soft hyphen": "Füch\u00adse",
    "full width": "Füchs\uff45",
}


def classes(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "prompts": ["an animal"]} for name in names]


def codes(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(error["pointer"], error["code"]) for error in answer.json()["errors"]]


def test_what_creation_calls_equal_uploads_and_filters_find(http: httpx.Client) -> None:
    created = create_empty(http, classes=classes("Füchse", "dog"))
    for number, (what, name) in enumerate(VARIANTS.items()):
        answer = upload(http, created["id"], [picture(number)], class_name=name)
        assert answer.status_code == 201, f"{what}: {answer.text}"
        for path in (f"/datasets/{created['id']}/images", "/images"):
            query = {"class": name, "dataset_id": created["id"]} if path == "/images" else {"class": name}
            assert len(http.get(path, params=query).json()["items"]) == number + 1, what
    read = http.get(f"/datasets/{created['id']}").json()
    assert [entry["num_train"] for entry in read["classes"]] == [len(VARIANTS), 0]
    refused = upload(http, created["id"], [picture(99)], class_name="fuchse")
    assert (refused.status_code, refused.json()["code"]) == (422, "class_not_found")


@pytest.mark.parametrize("name", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("way", ["create", "dry run", "train"])
def test_names_that_look_equal_are_no_two_classes(http: httpx.Client, name: str, way: str) -> None:
    body = {"name": "d", "classes": classes("dog", "Füchse", "cat", name), "train_per_class": 1, "test_per_class": 0}
    if way == "train":
        answer = http.post("/train-jobs", json={"dataset": body})
    else:
        answer = http.post("/datasets", json=body, params={"dry_run": way == "dry run"})
    assert answer.status_code == 422, answer.text
    pointer = "#/dataset/classes" if way == "train" else "#/classes"
    assert codes(answer) == [(pointer, "duplicate_classes")]
    assert "1 and 3" in answer.json()["errors"][0]["detail"]


def test_a_name_that_shows_nothing_is_none(http: httpx.Client) -> None:
    for name in ("\u3164", "\u200b", "\u2800", "\u00ad "):
        answer = http.post("/datasets", json={"name": "d", "classes": classes("dog", name)})
        assert answer.status_code == 422, name
        assert codes(answer) == [("#/classes/1/name", "text_empty")]


@pytest.mark.parametrize("label", VARIANTS.values(), ids=VARIANTS.keys())
def test_labels_that_look_equal_share_no_probability(http: httpx.Client, label: str) -> None:
    form: Any = [
        ("image", ("a.png", picture(1), "image/png")),
        *(("labels", (None, text)) for text in ("Füchse", label)),
    ]
    refused = http.post("/clip-score", files=form)
    assert (refused.status_code, codes(refused)) == (422, [("#/labels", "duplicate_labels")])
    refused = http.post("/generate", json={"prompt": "a fox", "labels": ["dog", "Füchse", label]})
    assert (refused.status_code, codes(refused)) == (422, [("#/labels", "duplicate_labels")])
    labelled = classes("one", "two")
    labelled[0]["label"], labelled[1]["label"] = "Füchse", label
    refused = http.post("/datasets", json={"name": "d", "classes": labelled, "filter": {}})
    assert codes(refused) == [(f"#/classes/{index}/label", "duplicate_labels") for index in (0, 1)]


def test_classes_of_older_datasets_that_are_equal_by_now_stay_reachable(http: httpx.Client, db: Database) -> None:
    created = create_empty(http, classes=classes("fox", "dog"))
    with db.transaction() as session:
        dataset = session.get_one(Dataset, created["id"])
        dataset.classes = [dataset.classes[0], {**dataset.classes[1], "name": "fox "}]
    for number, name in enumerate(["fox", "fox ", "fox\u200b"]):
        assert upload(http, created["id"], [picture(number)], class_name=name).status_code == 201
    read = http.get(f"/datasets/{created['id']}").json()
    assert [(entry["name"], entry["num_train"]) for entry in read["classes"]] == [("fox", 2), ("fox ", 1)]
    assert len(http.get(f"/datasets/{created['id']}/images", params={"class": "fox "}).json()["items"]) == 1
