"""Datasets as they leave over HTTP, read by the libraries that they are for."""

import io
import json
import os
import socket
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from torchvision.datasets import ImageFolder

from app.db.session import Database
from app.node.client import NodeClient
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


def test_imagefolder_and_hugging_face_load_a_mixed_dataset(
    http: httpx.Client, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unzipped(http, mixed(node)["id"], tmp_path / "out")
    assert [len(ImageFolder(folder / split)) for split in ("train", "test")] == [4, 4]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        for source in ({"path": "imagefolder", "data_dir": str(folder)}, {"path": str(folder)}):
            loaded = datasets.load_dataset(**source, cache_dir=str(tmp_path / "cache"))
            assert {split: len(rows) for split, rows in loaded.items()} == {"train": 4, "test": 4}
            made = [(row["label"], row["source"], row["prompt"], row["seed"] >= 0) for row in loaded["train"]]
            assert made == [(label, "synthetic", "a fox", True) for label in CLASSES for _ in range(2)]
            real = [(row["label"], row["source"], row["prompt"], row["seed"]) for row in loaded["test"]]
            assert real == [(label, "real", "", -1) for label in CLASSES for _ in range(2)]
            assert loaded["train"][0]["image"].size == (64, 64)
            assert {row["split"] for row in loaded["test"]} == {"test"}


def test_webdataset_loads_the_shards(http: httpx.Client, node: Node, tmp_path: Path) -> None:
    created = mixed(node)
    fill(http, created["id"], num_train=10, num_test=0)
    listed = http.get(f"/datasets/{created['id']}/shards?samples_per_shard=10").json()
    shapes = [(shard["name"], shard["num_samples"]) for shard in listed["shards"]]
    names = ("train-000000.tar", "train-000001.tar", "train-000002.tar", "test-000000.tar")
    assert shapes == list(zip(names, (10, 10, 4, 4), strict=True))
    assert listed["version"] == http.get(f"/datasets/{created['id']}/version").json()["version"]
    files = []
    for shard in listed["shards"]:
        answer = http.get(shard["url"])
        assert int(answer.headers["content-length"]) == len(answer.content) == len(http.get(shard["url"]).content)
        files.append(tmp_path / shard["name"])
        files[-1].write_bytes(answer.content)
        with tarfile.open(files[-1]) as archive:
            assert all((info.mtime, info.uid, info.uname) == (0, 0, "") for info in archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        paths = [str(path) for path in files]
        samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode("pil"))
    assert len(samples) == 28
    for sample in samples:
        facts = sample["json"]
        assert CLASSES[sample["cls"]] == facts["label"]
        assert (sample.get("png") or sample["jpeg"]).mode == "RGB"
        assert facts["prompt"] == ("a fox" if facts["source"] == "synthetic" else "")
    first = {sample["cls"] for sample in samples[:10]}
    assert first == {0, 1}  # mixed, not class by class
    assert http.get(f"/datasets/{created['id']}/shards/4.tar?samples_per_shard=10").status_code == 404
    assert http.get(f"/datasets/{created['id']}/shards?samples_per_shard=9").status_code == 422


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
    assert json.loads(card.split("```json\n")[1].split("\n```")[0])[1][0] == hostile[1]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} >= {"out"}
    assert len(ImageFolder(folder / "train").classes) == len(hostile)


def test_an_empty_dataset_is_a_valid_archive_and_one_in_the_making_is_409(http: httpx.Client, tmp_path: Path) -> None:
    empty = create_empty(http)
    folder = unzipped(http, empty["id"], tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "dataset.json"]
    assert http.get(f"/datasets/{empty['id']}/shards").json()["shards"] == []
    making = create_empty(http, name="making", train_per_class=1)
    for path in ("archive.zip", "shards", "shards/0.tar"):
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
