"""The metadata of an exported dataset: a line for each image, the recipe with the classes' indices, a dataset card.

Contains no ids, times or host names, so that one recipe gives the same archive on every node. Opens no session and no
file. Pure functions of the records; any thread may call them.
"""

import json
from collections import Counter
from pathlib import PurePosixPath
from typing import Any, Literal

from huggingface_hub import DatasetCardData

from app.db.models import Dataset, Image
from app.schemas.common import SPLITS
from app.services.datasets.records import preset_of, recipe_read

COLUMNS = (
    Image.path,
    Image.num_bytes,
    Image.sha256,
    Image.split,
    Image.class_index,
    Image.source,
    Image.seed,
    Image.clip_score,
    Image.lineage,
)

# Images by (split, class index, source).
ContentCounts = Counter[tuple[str, int, str]]
# The columns of `metadata.jsonl` besides `file_name` and `label`, with their types in Hugging Face `datasets`.
DTYPES: dict[str, Literal["string", "int64", "float64"]] = {
    "class_index": "int64",
    "split": "string",
    "source": "string",
    "prompt": "string",
    "negative_prompt": "string",
    "seed": "int64",
    "guidance_scale": "float64",
    "num_inference_steps": "int64",
    "model": "string",
    "model_revision": "string",
    "clip_score": "float64",
    "format": "string",
    "sha256": "string",
}

_CARD = """
# {name}

{num_images} images in {num_classes} classes, {num_real} of them uploaded and the others generated{by}.
Made by Foxhound; `metadata.jsonl` of each split has one line for each image. A number that an image has no value for is
-1, a text is empty: an uploaded image has neither prompt nor seed. The `recipe` in `dataset.json` makes the generated
images again:

```sh
jq .recipe dataset.json | curl http://127.0.0.1:8000/datasets -H 'Content-Type: application/json' -d @-
```

```python
datasets.load_dataset("{name}")  # a folder of this name; image, label, prompt, seed, ...
torchvision.datasets.ImageFolder("{name}/train")  # numbers the folders by alphabet, see below
```

A class has the same number in `label` above, in `class_index` of `metadata.jsonl` and in every model trained here: its
place in the list below. `class_to_idx` and `folder_to_idx` in `dataset.json` have it by name and by folder;
`imagefolder_class_to_idx` has the numbers that torchvision's `ImageFolder` gives to the folders of each split.

Version `{version}`

Classes, each with its folder:

```json
{classes}
```
"""


def dataset_root(dataset: Dataset) -> str:
    """Return the relative path of the folder that contains the dataset's images."""
    return f"datasets/{dataset.name}"


def member_name(dataset: Dataset, path: str) -> str:
    """Return the name of a stored image in an archive: `{split}/{class folder}/{file}`."""
    return str(PurePosixPath(path).relative_to(dataset_root(dataset)))


def image_facts(dataset: Dataset, row: Any) -> dict[str, Any]:
    """Return the exported metadata of one image; `row` has `COLUMNS`.

    Every value has one type and none is null: Hugging Face `datasets` refuses splits whose columns differ in type,
    and a column of nulls has its own type.
    """
    lineage = row.lineage
    return {
        "label": dataset.classes[row.class_index]["name"],
        "class_index": row.class_index,
        "split": row.split,
        "source": row.source,
        "prompt": lineage.get("prompt", ""),
        "negative_prompt": lineage.get("negative_prompt", ""),
        "seed": -1 if row.seed is None else row.seed,
        "guidance_scale": float(lineage.get("guidance_scale", -1)),
        "num_inference_steps": lineage.get("num_inference_steps", -1),
        "model": lineage.get("pack", ""),
        "model_revision": lineage.get("pack_revision", ""),
        "clip_score": float(-1 if row.clip_score is None else row.clip_score),
        "format": PurePosixPath(row.path).suffix.removeprefix("."),
        "sha256": row.sha256,
    }


def counts_by_source(counts: ContentCounts) -> Counter[tuple[str, str]]:
    """Return the numbers of images by (split, source)."""
    summed: Counter[tuple[str, str]] = Counter()
    for (split, _, source), num in counts.items():
        summed[split, source] += num
    return summed


def splits_of(counts: ContentCounts) -> list[str]:
    """Return the splits that have images, in their order."""
    present = {split for split, _, _ in counts}
    return [split for split in SPLITS if split in present]


def recipe_text(dataset: Dataset, version: str, counts: ContentCounts) -> str:
    """Return `dataset.json` of a dataset that was loaded with its texts; `counts` are those of all of its images.

    Its `recipe` is a body of `POST /datasets` with every default resolved; the same pack gives the same images.
    """
    recipe = {
        "format": 3,
        "name": dataset.name,
        "version": version,
        "model": {"name": dataset.pack, "revision": dataset.pack_revision},
        "preset": preset_of(dataset),
        "folders": {entry["name"]: entry["folder"] for entry in dataset.classes},
        "classes": [entry["name"] for entry in dataset.classes],
        **_indices(dataset, counts),
        "recipe": recipe_read(dataset).model_dump(mode="json"),
        "counts": [
            {"split": split, "source": source, "num_images": n}
            for (split, source), n in sorted(counts_by_source(counts).items())
        ],
    }
    return json.dumps(recipe, indent=2, sort_keys=True) + "\n"


def _indices(dataset: Dataset, counts: ContentCounts) -> dict[str, Any]:
    """Return the number of each class: ours by name and by folder, and torchvision's by split and folder.

    Source: `torchvision.datasets.folder.find_classes` numbers the folders that a split has in the order of their names.
    """
    folders = [entry["folder"] for entry in dataset.classes]
    present = {split: {folders[index] for of, index, _ in counts if of == split} for split in splits_of(counts)}
    return {
        "class_to_idx": {entry["name"]: index for index, entry in enumerate(dataset.classes)},
        "folder_to_idx": {folder: index for index, folder in enumerate(folders)},
        "imagefolder_class_to_idx": {
            split: {folder: index for index, folder in enumerate(sorted(found))} for split, found in present.items()
        },
    }


def _features(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the columns as `dataset_info` of a card has them; `label` is a ClassLabel in the dataset's order."""
    names = {str(index): entry["name"] for index, entry in enumerate(dataset.classes)}
    columns: list[dict[str, Any]] = [{"name": name, "dtype": dtype} for name, dtype in DTYPES.items()]
    return [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
        *columns,
    ]


def card_text(dataset: Dataset, version: str, counts: ContentCounts) -> str:
    """Return `README.md`, a dataset card in the format of Hugging Face; `counts` as in `recipe_text`."""
    total = sum(counts.values())
    by_source = counts_by_source(counts)
    files = [{"split": split, "path": f"{split}/**"} for split in splits_of(counts)]
    # ImageFolder's builder takes the columns of its configuration, other builders those of `dataset_info`; built twice,
    # since YAML would write a reference instead of a second copy.
    config = {"config_name": "default", "data_files": files, "features": _features(dataset)}
    head = DatasetCardData(
        pretty_name=dataset.name,
        task_categories=["image-classification"],
        license="unknown",
        tags=["foxhound", *sorted({source for _, source in by_source})],
        size_categories=_size_category(total),
        configs=[config] if files else None,
        dataset_info={"features": _features(dataset)} if files else None,
    )
    folders = [json.dumps([entry["name"], entry["folder"]]) for entry in dataset.classes]
    body = _CARD.format(
        name=dataset.name,
        num_images=total,
        num_classes=len(dataset.classes),
        num_real=sum(n for (_, source), n in by_source.items() if source == "real"),
        by=_drawn_by(dataset, by_source),
        version=version,
        classes="[\n" + ",\n".join(folders) + "\n]",
    )
    return f"---\n{head.to_yaml()}\n---\n{body}"


def _drawn_by(dataset: Dataset, by_source: Counter[tuple[str, str]]) -> str:
    """Return the words that name the model of the generated images; none where there are none."""
    is_generated = any(n for (_, source), n in by_source.items() if source == "synthetic")
    if not is_generated or not dataset.pack:
        return ""
    revision = f" (revision `{dataset.pack_revision}`)" if dataset.pack_revision else ""
    return f" by the model `{dataset.pack}`{revision}"


def _size_category(total: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    return next((name for bound, name in bounds if total < bound), "100K<n<1M")
