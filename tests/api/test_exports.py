"""Datasets as they leave over HTTP, read by the libraries that they are for."""

import hashlib
import io
import json
import os
import socket
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import yaml
from PIL import Image
from torchvision.datasets import ImageFolder

from app.db.session import Database
from app.node.client import NodeClient
from app.schemas.croissant import CroissantFile, CroissantRead
from app.schemas.exports import CocoRead
from app.services.datasets.job import DatasetImages, DatasetJob
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.node import Node
from testing.uploads import CLASSES, create_empty, fill, picture, upload


def mixed(node: Node, **changes: Any) -> dict:
    """A dataset of two generated images a class for training, and two real ones for testing."""
    generation = {"num_inference_steps": 1, "width": 64, "height": 64}
    created = create_empty(node.http, train_per_class=2, generation=generation, **changes)
    db, client = Database(node.settings.resolved_database_url), NodeClient(node.settings.engine_socket)
    images = DatasetImages(db, DataFolder(node.settings.data_dir), client, chunk_size=3)
    run_job(db, created["job_id"], DatasetJob(images))
    client.close()
    db.close()
    fill(node.http, created["id"], num_train=0, num_test=2)
    return created


def unzipped(http: httpx.Client, dataset_id: str, into: Path) -> Path:
    answer = http.get(f"/datasets/{dataset_id}/archive.zip")
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        archive.extractall(into)  # noqa: S202 - our own archive
    return into


def test_the_card_and_the_recipe_say_which_number_each_class_has(
    http: httpx.Client, node: Node, tmp_path: Path
) -> None:
    """That `datasets` reads the card so is checked in tests/loaders."""
    folder = unzipped(http, mixed(node)["id"], tmp_path / "out")
    head = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    config = head["configs"][0]
    assert config["data_files"] == [{"split": split, "path": f"{split}/**"} for split in ("train", "test")]
    image, label, *others = config["features"]
    assert (image, label["name"]) == ({"name": "image", "dtype": "image"}, "label")
    assert label["dtype"]["class_label"]["names"] == {"0": CLASSES[0], "1": CLASSES[1]}
    assert head["dataset_info"]["features"] == config["features"]
    lines = [json.loads(line) for line in (folder / "train" / "metadata.jsonl").read_text().splitlines()]
    types = {str: "string", int: "int64", float: "float64"}
    for line in lines:
        found = [{"name": name, "dtype": types[type(value)]} for name, value in line.items()]
        assert found[2:] == others
        assert (line["prompt"], line["source"], line["format"]) == ("a fox", "synthetic", "png")
        assert line["seed"] >= 0
    real = [json.loads(line) for line in (folder / "test" / "metadata.jsonl").read_text().splitlines()]
    assert {(line["prompt"], line["source"], line["seed"]) for line in real} == {("", "real", -1)}
    facts = json.loads((folder / "dataset.json").read_text())
    assert (facts["format"], facts["classes"]) == (3, CLASSES)
    assert facts["class_to_idx"] == {CLASSES[0]: 0, CLASSES[1]: 1}
    assert facts["folder_to_idx"] == {facts["folders"][name]: index for index, name in enumerate(CLASSES)}
    for split in ("train", "test"):
        assert ImageFolder(folder / split).class_to_idx == facts["imagefolder_class_to_idx"][split]


def test_a_class_without_images_in_a_split_has_no_number_of_image_folder_there(http: httpx.Client) -> None:
    created = create_empty(http)
    assert upload(http, created["id"], [picture(1)], class_name=CLASSES[0], split="test").status_code == 201
    assert upload(http, created["id"], [picture(2)], class_name="dog").status_code == 201
    with zipfile.ZipFile(io.BytesIO(http.get(f"/datasets/{created['id']}/archive.zip").content)) as archive:
        facts = json.loads(archive.read("dataset.json"))
    assert facts["imagefolder_class_to_idx"] == {"train": {"dog": 0}, "test": {facts["folders"][CLASSES[0]]: 0}}
    assert facts["folder_to_idx"]["dog"] == 1


def test_a_split_has_a_zip_of_its_own(http: httpx.Client) -> None:
    created = create_empty(http)
    fill(http, created["id"], num_train=3, num_test=1)
    path = f"/datasets/{created['id']}/archive"
    with zipfile.ZipFile(io.BytesIO(http.get(f"{path}.zip").content)) as archive:
        whole = {info.filename: archive.read(info) for info in archive.infolist()}
    parts: dict[str, bytes] = {}
    for split in ("train", "test"):
        answer = http.get(f"{path}/{split}.zip")
        assert answer.headers["content-disposition"].startswith(f'attachment; filename="fox-dog-{split}-')
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            assert all(name == "dataset.json" or name.startswith(f"{split}/") for name in archive.namelist())
            parts |= {info.filename: archive.read(info) for info in archive.infolist()}
    assert parts == {name: data for name, data in whole.items() if name != "README.md"}
    refused = http.get(f"{path}/validation.zip")
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    assert http.get(f"{path}/dev.zip").status_code == 404


def test_shards_have_one_image_key_whatever_the_formats(http: httpx.Client, node: Node) -> None:
    created = mixed(node)
    fill(http, created["id"], num_train=10, num_test=0)
    assert upload(http, created["id"], [picture(7, "JPEG")], class_name="dog", split="test").status_code == 201
    listed = http.get(f"/datasets/{created['id']}/shards?samples_per_shard=10").json()
    shapes = [(shard["name"], shard["num_samples"]) for shard in listed["shards"]]
    names = ("train-000000.tar", "train-000001.tar", "train-000002.tar", "test-000000.tar")
    assert shapes == list(zip(names, (10, 10, 4, 5), strict=True))
    assert listed["version"] == http.get(f"/datasets/{created['id']}/version").json()["version"]
    assert listed["image_key"] == "png"
    stems: list[str] = []
    formats = []
    for shard in listed["shards"]:
        answer = http.get(shard["url"])
        assert int(answer.headers["content-length"]) == len(answer.content) == len(http.get(shard["url"]).content)
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
            first, *members = archive
            assert all((info.mtime, info.uid, info.uname) == (0, 0, "") for info in (first, *members))
            assert first.name == "__dataset.json__"
            for image, facts, label in zip(*[iter(members)] * 3, strict=True):
                stem = image.name.removesuffix(".png")
                assert (facts.name, label.name) == (f"{stem}.json", f"{stem}.cls")
                read = json.loads(_content(archive, facts))
                assert CLASSES[int(_content(archive, label))] == read["label"]
                picture_file = Image.open(io.BytesIO(_content(archive, image)))
                assert (picture_file.format or "").lower() == read["format"]
                formats.append(read["format"])
                stems.append(f"{shard['split']}/{stem}")
    assert len(stems) == len(set(stems)) == 29
    assert Counter(formats) == {"png": 28, "jpeg": 1}
    labels = {stem.split("/")[1] for stem in stems[:10]}
    assert len(labels) == 2  # mixed, not class by class
    assert http.get(f"/datasets/{created['id']}/shards/4.tar?samples_per_shard=10").status_code == 404
    assert http.get(f"/datasets/{created['id']}/shards?samples_per_shard=9").status_code == 422


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None
    return file.read()


def test_annotations_and_description_answer_as_their_schemas_say(http: httpx.Client) -> None:
    """That loaders take them is checked in tests/loaders."""
    created = create_empty(http)
    fill(http, created["id"], num_train=2, num_test=1)
    path = f"/datasets/{created['id']}"
    answer = http.get(f"{path}/coco.json")
    assert answer.headers["content-disposition"] == 'attachment; filename="fox-dog-coco.json"'
    assert http.get(f"{path}/coco.json", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    read = CocoRead.model_validate_json(answer.content)
    assert [(one.id, one.name) for one in read.categories] == list(enumerate(CLASSES))
    assert [one.category_id for one in read.annotations] == [0, 0, 1, 1, 0, 1]
    assert [one.file_name.split("/")[0] for one in read.images] == ["train"] * 4 + ["test"] * 2
    assert {(one.width, one.height) for one in read.images} == {(16, 12)}
    of_split = CocoRead.model_validate_json(http.get(f"{path}/coco.json?split=test").content)
    assert [one.file_name for one in of_split.images] == [one.file_name for one in read.images[4:]]
    assert http.get(f"{path}/coco.json?split=validation").json()["images"] == []

    answer = http.get(f"{path}/croissant.json")
    assert answer.headers["content-type"] == "application/ld+json"
    described = CroissantRead.model_validate(answer.json())
    file = described.distribution[0]
    assert isinstance(file, CroissantFile)
    assert file.content_url == f"{str(http.base_url).rstrip('/')}{path}/archive.zip"
    archive = http.get(file.content_url).content
    assert (file.sha256, file.content_size) == (hashlib.sha256(archive).hexdigest(), f"{len(archive)} B")
    assert http.get(f"{path}/croissant.json").json() == answer.json()
    assert upload(http, created["id"], [picture(9)]).status_code == 201
    assert http.get(f"{path}/croissant.json").json()["distribution"][0]["sha256"] != file.sha256


def test_a_download_resumes_and_only_of_the_same_bytes(http: httpx.Client) -> None:
    created = create_empty(http)
    fill(http, created["id"])
    path = f"/datasets/{created['id']}/archive.zip"
    answer = http.get(path)
    data, etag = answer.content, answer.headers["etag"]
    assert answer.headers["accept-ranges"] == "bytes"
    assert http.get(path, headers={"If-None-Match": etag}).status_code == 304
    for asked, start, stop in (("100-", 100, len(data)), ("5-9", 5, 10), ("-7", len(data) - 7, len(data))):
        part = http.get(path, headers={"Range": f"bytes={asked}", "If-Range": etag})
        assert (part.status_code, part.content) == (206, data[start:stop])
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(data)}"
    for odd in ("bytes=9-5", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=x"):
        whole = http.get(path, headers={"Range": odd})
        assert (whole.status_code, whole.content) == (200, data)
    beyond = http.get(path, headers={"Range": f"bytes={len(data)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert beyond.json()["code"] == "range_not_satisfiable"

    before = http.get(f"/datasets/{created['id']}/version").json()["version"]
    upload(http, created["id"], [picture(99)])
    changed = http.get(path, headers={"Range": "bytes=100-", "If-Range": etag})
    assert (changed.status_code, changed.headers["etag"] != etag) == (200, True)
    assert http.get(f"/datasets/{created['id']}/version").json()["version"] != before


def test_equal_content_has_an_equal_archive_whatever_its_id_and_history(http: httpx.Client) -> None:
    first = create_empty(http)
    fill(http, first["id"])
    archive = http.get(f"/datasets/{first['id']}/archive.zip")
    assert http.delete(f"/datasets/{first['id']}").status_code == 204
    second = create_empty(http)
    fill(http, second["id"])
    again = http.get(f"/datasets/{second['id']}/archive.zip")
    assert (again.headers["etag"], again.content) == (archive.headers["etag"], archive.content)
    assert archive.headers["content-disposition"].startswith('attachment; filename="fox-dog-')


def test_the_recipe_and_the_card_hold_hostile_names_as_text(http: httpx.Client, tmp_path: Path) -> None:
    hostile = ["../../x", "```\n---\na: !!python/object:os.system", "\U0001f98a <script>", "con", "a" * 200]
    created = create_empty(http, classes=[{"name": name, "prompts": ["a fox"]} for name in hostile])
    for k, name in enumerate(hostile):
        assert upload(http, created["id"], [picture(k)], class_name=name).status_code == 201
    folder = unzipped(http, created["id"], tmp_path / "out")
    recipe = json.loads((folder / "dataset.json").read_text())
    assert [entry["name"] for entry in recipe["recipe"]["classes"]] == hostile
    lines = [json.loads(line) for line in (folder / "train" / "metadata.jsonl").read_text().splitlines()]
    assert sorted(line["label"] for line in lines) == sorted(hostile)
    assert all((folder / "train" / line["file_name"]).is_file() for line in lines)
    card = (folder / "README.md").read_text()
    head = next(yaml.safe_load_all(card))
    named = head["configs"][0]["features"][1]["dtype"]["class_label"]["names"]
    assert [named[str(index)] for index in range(len(hostile))] == hostile
    assert json.loads(card.split("```json\n")[1].split("\n```")[0])[1][0] == hostile[1]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} >= {"out"}
    assert len(ImageFolder(folder / "train").classes) == len(hostile)


def test_an_empty_dataset_is_a_valid_archive_and_one_in_the_making_is_409(http: httpx.Client, tmp_path: Path) -> None:
    empty = create_empty(http)
    folder = unzipped(http, empty["id"], tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "dataset.json"]
    assert http.get(f"/datasets/{empty['id']}/shards").json()["shards"] == []
    assert http.get(f"/datasets/{empty['id']}/coco.json").json()["annotations"] == []
    described = CroissantRead.model_validate(http.get(f"/datasets/{empty['id']}/croissant.json").json())
    assert described.record_set[0].data == []
    making = create_empty(http, name="making", train_per_class=1)
    for path in ("archive.zip", "archive/train.zip", "shards", "shards/0.tar", "coco.json", "croissant.json"):
        answer = http.get(f"/datasets/{making['id']}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "dataset_in_use")
        assert http.get(f"/datasets/no-such/{path}").status_code == 404


def test_a_dataset_deleted_during_its_download_ends_it_short(http: httpx.Client, node: Node) -> None:
    created = create_empty(http)
    size = (1_000, 1_000)  # 3 MB each: far more than sockets and buffers hold
    files = [picture(k, size=size, compress_level=0) for k in range(10)]
    assert upload(http, created["id"], files).json()["num_accepted"] == 10
    path = f"/datasets/{created['id']}/archive.zip"
    whole = int(http.get(path).headers["content-length"])
    with socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=30) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = len(client.recv(1_000))
        assert http.delete(f"/datasets/{created['id']}").status_code == 204
        while part := client.recv(1 << 20):
            received += len(part)
    assert 1_000 <= received < whole
    assert not os.path.exists(node.settings.data_dir / "datasets" / "fox-dog")
