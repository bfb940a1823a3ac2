"""The metadata of an exported dataset: a line for each image, the recipe, and a dataset card.

Contains no ids, times or host names, so that one recipe gives the same archive on every node. Opens no session and no
file. Pure functions of the records; any thread may call them.
"""

import json
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import DatasetCardData

from app.db.models import Dataset, Image
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

_CARD = """
# {name}

{num_images} images in {num_classes} classes, {num_real} of them uploaded and the others generated. Made by Foxhound;
`metadata.jsonl` of each split has one line for each image. A number that an image has no value for is -1, a text is
empty: an uploaded image has neither prompt nor seed. The `recipe` in `dataset.json` makes the generated images again:

```sh
jq .recipe dataset.json | curl http://127.0.0.1:8000/datasets -H 'Content-Type: application/json' -d @-
```

```python
datasets.load_dataset("imagefolder", data_dir="{name}")  # image, label, prompt, seed, ...
torchvision.datasets.ImageFolder("{name}/train")
```

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
        "clip_score": float(-1 if row.clip_score is None else row.clip_score),
        "sha256": row.sha256,
    }


def recipe_text(dataset: Dataset, version: str, counts: Counter[tuple[str, str]]) -> str:
    """Return `dataset.json` of a dataset that was loaded with its texts; `counts` are images by (split, source).

    Its `recipe` is a body of `POST /datasets` with every default resolved; the same pack gives the same images.
    """
    recipe = {
        "format": 2,
        "name": dataset.name,
        "version": version,
        "model": {"name": dataset.pack, "revision": dataset.pack_revision},
        "preset": preset_of(dataset),
        "folders": {entry["name"]: entry["folder"] for entry in dataset.classes},
        "recipe": recipe_read(dataset).model_dump(mode="json"),
        "counts": [
            {"split": split, "source": source, "num_images": n} for (split, source), n in sorted(counts.items())
        ],
    }
    return json.dumps(recipe, indent=2, sort_keys=True) + "\n"


def card_text(dataset: Dataset, version: str, counts: Counter[tuple[str, str]]) -> str:
    """Return `README.md`, a dataset card in the format of Hugging Face; `counts` as in `recipe_text`."""
    total = sum(counts.values())
    splits = sorted({split for split, _ in counts})
    files = [{"split": split, "path": f"{split}/**"} for split in splits]
    head = DatasetCardData(
        pretty_name=dataset.name,
        task_categories=["image-classification"],
        tags=["foxhound", *sorted({source for _, source in counts})],
        size_categories=_size_category(total),
        configs=[{"config_name": "default", "data_files": files}] if files else None,
    )
    folders = [json.dumps([entry["name"], entry["folder"]]) for entry in dataset.classes]
    body = _CARD.format(
        name=dataset.name,
        num_images=total,
        num_classes=len(dataset.classes),
        num_real=sum(n for (_, source), n in counts.items() if source == "real"),
        version=version,
        classes="[\n" + ",\n".join(folders) + "\n]",
    )
    return f"---\n{head.to_yaml()}\n---\n{body}"


def _size_category(total: int) -> str:
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
    return next((name for bound, name in bounds if total < bound), "100K<n<1M")
