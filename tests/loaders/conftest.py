"""A mixed dataset, exported: generated PNGs, uploaded JPEGs and WebPs, three splits, and names as people write them."""

import io
import shutil
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.uploads import picture, upload
from testing.workbench import Workbench

# Neither the order of the names nor that of their folders is alphabetical; two are read as other types by some loaders.
CLASSES = ["wolves/dogs", "Rote Füchse & Bären", "🦊", "007", "null", "2021-01-01"]
PER_CLASS = {"train": 3, "validation": 1, "test": 2}
# Of each class and split one JPEG is uploaded, and a WebP for training.
COUNTS = {"train": 5, "validation": 2, "test": 3}


@dataclass(frozen=True, slots=True)
class Exported:
    """A dataset of a served node.

    Attributes:
        http: A client of the node.
        url: The node's URL.
        id: The dataset's id.
        folder: A folder with the archive, `fox-dog.zip`, and unpacked in `fox-dog`.
    """

    http: httpx.Client
    url: str
    id: str
    folder: Path

    @property
    def unpacked(self) -> Path:
        return self.folder / "fox-dog"

    def get(self, path: str) -> httpx.Response:
        """Return an answer about the dataset."""
        answer = self.http.get(f"/datasets/{self.id}{path}")
        assert answer.status_code == 200, answer.text
        return answer


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Exported]:
    root = tmp_path_factory.mktemp("loaders")
    shutil.copyfile(sqlite_template, root / "foxhound.db")
    with serve(make_settings(root / "data", f"sqlite:///{root / 'foxhound.db'}"), FakeModels()) as node:
        dataset = _mixed(node)
        found = Exported(node.http, str(node.http.base_url).rstrip("/"), dataset["id"], root)
        data = found.get("/archive.zip").content
        (root / "fox-dog.zip").write_bytes(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(found.unpacked)
        yield found


def _mixed(node: Node) -> dict[str, Any]:
    bench = Workbench(node)
    numbers = {f"{split}_per_class": number for split, number in PER_CLASS.items()}
    classes = [{"name": name, "prompts": ["a {style} fox"]} for name in CLASSES]
    variables = {"style": ["sketched", "painted"]}
    read = bench.make("fox-dog", classes=classes, variables=variables, **numbers)
    for index, name in enumerate(CLASSES):
        for number, split in enumerate(PER_CLASS):
            files = [picture(100 * index + number, "JPEG")]
            if split == "train":
                files.append(picture(100 * index + 9, "WEBP", lossless=True))
            answer = upload(node.http, read["id"], files, class_name=name, split=split)
            assert answer.json()["num_accepted"] == len(files), answer.text
    bench.close()
    return read


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the libraries from the network and from the user's caches; what they warn of is theirs."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "downloads")
        monkeypatch.setattr(datasets.config, "EXTRACTED_DATASETS_PATH", tmp_path / "extracted")
        yield
