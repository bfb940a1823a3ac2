"""Exports of a mixed dataset load in the libraries that they are for, with every image, class and split."""

import json
from collections import Counter
from typing import Any

import pytest

from tests.loaders.conftest import CLASSES, COUNTS, Exported

pytestmark = pytest.mark.loaders
ROWS = {split: len(CLASSES) * count for split, count in COUNTS.items()}
SIZES = ((64, 64), (16, 12))


def check(loaded: Any) -> None:
    """Check splits, numbers of rows and labels of a dataset of `datasets`."""
    assert {split: len(rows) for split, rows in loaded.items()} == ROWS
    for split, rows in loaded.items():
        assert rows.features["label"].names == CLASSES
        assert Counter(rows["label"]) == dict.fromkeys(range(len(CLASSES)), COUNTS[split])
        assert list(rows["label"]) == list(rows["class_index"])
        assert set(rows["split"]) == {split}
        assert all(row["image"].size in SIZES for row in rows)
        assert [row["image"].format.lower() for row in rows] == list(rows["format"])


def test_hugging_face_loads_the_unpacked_archive(exported: Exported) -> None:
    from datasets import load_dataset

    check(load_dataset(str(exported.unpacked)))


@pytest.mark.parametrize("source", ["path", "url"])
def test_hugging_face_loads_the_zips_split_by_split(exported: Exported, source: str) -> None:
    from datasets import ClassLabel, load_dataset

    urls = {split: f"{exported.url}/datasets/{exported.id}/archive/{split}.zip" for split in ROWS}
    files = {}
    for split, url in urls.items():
        files[split] = url
        if source == "path":
            path = exported.folder / f"{split}.zip"
            path.write_bytes(exported.http.get(url).content)
            files[split] = str(path)
    loaded = load_dataset("imagefolder", data_files=files)
    check(loaded.cast_column("label", ClassLabel(names=CLASSES)))


def test_image_folder_counts_otherwise_and_says_so(exported: Exported) -> None:
    from torchvision.datasets import ImageFolder

    facts = json.loads((exported.unpacked / "dataset.json").read_text())
    assert facts["classes"] == CLASSES
    assert facts["class_to_idx"] == {name: index for index, name in enumerate(CLASSES)}
    for split, rows in ROWS.items():
        folder = ImageFolder(exported.unpacked / split)
        assert folder.class_to_idx == facts["imagefolder_class_to_idx"][split]
        assert len(folder) == rows
        ours = [facts["folder_to_idx"][name] for name in folder.classes]
        assert ours != list(range(len(CLASSES)))  # the test can fail
        folder.target_transform = ours.__getitem__
        assert Counter(label for _, label in folder) == dict.fromkeys(range(len(CLASSES)), COUNTS[split])


def test_every_shard_has_one_image_key(exported: Exported) -> None:
    import webdataset
    from datasets import load_dataset

    listed = exported.get("/shards?samples_per_shard=10").json()
    assert listed["image_key"] == "png"
    found: Counter[tuple[str, int]] = Counter()
    keys = set()
    files: dict[str, list[str]] = {}
    for shard in listed["shards"]:
        path = exported.folder / shard["name"]
        path.write_bytes(exported.http.get(shard["url"]).content)
        files.setdefault(shard["split"], []).append(str(path))
    for split, paths in files.items():
        samples = webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode("pil")
        for image, index, facts in samples.to_tuple("png", "cls", "json"):
            assert (image.mode, facts["label"], facts["split"]) == ("RGB", CLASSES[index], split)
            found[split, index] += 1
        keys |= {sample["__key__"] for sample in webdataset.WebDataset(paths, shardshuffle=False, empty_check=False)}
    assert found == {(split, index): COUNTS[split] for split in ROWS for index in range(len(CLASSES))}
    assert len(keys) == len({(key, split) for key in keys for split in ("one",)})
    loaded = load_dataset("webdataset", data_files=files)
    assert {split: len(rows) for split, rows in loaded.items()} == ROWS
    for rows in loaded.values():
        assert [row["png"].format.lower() for row in rows] == [row["json"]["format"] for row in rows]
        assert [CLASSES[row["cls"]] for row in rows] == [row["json"]["label"] for row in rows]
    assert {row["png"].format for row in loaded["train"]} == {"PNG", "JPEG"}


def test_pandas_reads_the_metadata(exported: Exported) -> None:
    import pandas

    for split, rows in ROWS.items():
        table = pandas.read_json(exported.unpacked / split / "metadata.jsonl", lines=True, dtype=False)
        assert Counter(table["label"]) == dict.fromkeys(CLASSES, COUNTS[split])
        assert [CLASSES[index] for index in table["class_index"]] == list(table["label"])
        assert len(table) == rows
        assert all((exported.unpacked / split / name).is_file() for name in table["file_name"])


def test_coco_annotations_name_every_file_and_its_class(exported: Exported) -> None:
    whole = exported.get("/coco.json").json()
    assert [(one["id"], one["name"]) for one in whole["categories"]] == list(enumerate(CLASSES))
    assert len(whole["images"]) == len(whole["annotations"]) == sum(ROWS.values())
    for split, rows in ROWS.items():
        read = exported.get(f"/coco.json?split={split}").json()
        images = {image["id"]: image for image in read["images"]}
        assert len(images) == rows
        folders = {index: folder for folder, index in _facts(exported)["folder_to_idx"].items()}
        for annotation in read["annotations"]:
            image = images.pop(annotation["image_id"])
            assert (exported.unpacked / image["file_name"]).is_file()
            assert image["file_name"].split("/")[:2] == [split, folders[annotation["category_id"]]]
            assert annotation["bbox"] == [0, 0, image["width"], image["height"]]
            assert annotation["area"] == image["width"] * image["height"] > 0
        assert images == {}


def test_croissant_is_valid_and_its_records_are_the_images(exported: Exported, monkeypatch: Any, tmp_path: Any) -> None:
    import mlcroissant

    answer = exported.get("/croissant.json")
    assert answer.headers["content-type"] == "application/ld+json"
    archive = exported.folder / "fox-dog.zip"
    described = mlcroissant.Dataset(jsonld=answer.json(), mapping={"archive.zip": archive})
    assert described.metadata.ctx.issues.errors == set()
    assert described.metadata.ctx.issues.warnings == set()
    folders = _facts(exported)["folder_to_idx"]
    found = Counter(
        (_text(record["images/split"]), folders[_text(record["images/folder"])])
        for record in described.records("images")
        if record["images/image"].size in SIZES
    )
    assert found == {(split, index): COUNTS[split] for split in ROWS for index in range(len(CLASSES))}
    for split, count in COUNTS.items():
        rows = described.records(f"metadata-{split}")
        assert Counter(_text(row[f"metadata-{split}/label"]) for row in rows) == dict.fromkeys(CLASSES, count)
    classes = [_text(record["classes/name"]) for record in described.records("classes")]
    assert classes == CLASSES


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _facts(exported: Exported) -> Any:
    return json.loads((exported.unpacked / "dataset.json").read_text())
