"""The Python in docs/datasets.md runs as it stands, and gives every image of the split that it loads."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.loaders.conftest import CLASSES, COUNTS, Exported
from tests.loaders.test_loaders import ROWS, check

pytestmark = pytest.mark.loaders
TEXT = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def run(exported: Exported, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that runs the snippet with a text in it and returns its variables."""
    monkeypatch.chdir(exported.folder)
    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "croissant"))

    def run_it(text: str) -> dict[str, Any]:
        (snippet,) = (one for one in SNIPPETS if text in one)
        names = {"DATASET": f"{exported.url}/datasets/{exported.id}"}
        exec(compile(snippet, "docs/datasets.md", "exec"), names)  # noqa: S102 - our own documentation
        return names

    return run_it


def test_every_snippet_is_run_here() -> None:
    tested = ('load_dataset("fox-dog")', "cast_column", "ImageFolder(", "WebDataset(", "read_json", "mlcroissant")
    assert len(SNIPPETS) == len(tested)
    assert all(sum(text in snippet for snippet in SNIPPETS) == 1 for text in tested)


def test_hugging_face(run: Any) -> None:
    for text in ('load_dataset("fox-dog")', "cast_column"):
        check(run(text)["images"])


def test_torchvision(run: Any) -> None:
    labels = sorted(label for _, label in run("ImageFolder(")["images"])
    assert labels == sorted([*range(len(CLASSES))] * COUNTS["train"])


def test_webdataset(run: Any) -> None:
    rows = list(run("WebDataset(")["images"])
    assert len(rows) == ROWS["train"]
    assert all(CLASSES[index] == facts["label"] and image.mode == "RGB" for image, index, facts in rows)


def test_pandas(run: Any) -> None:
    assert sorted(set(run("read_json")["table"]["label"])) == sorted(CLASSES)


def test_croissant(run: Any) -> None:
    assert sum(1 for _ in run("mlcroissant")["records"]) == sum(ROWS.values())
