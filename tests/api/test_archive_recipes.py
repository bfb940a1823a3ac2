"""An archive's own recipe makes its generated images again."""

import io
import json
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest

from app.db.models import Dataset, DatasetTexts
from testing.uploads import picture, upload
from testing.workbench import CLASSES, RECIPE, Workbench

RECIPES = [
    {},
    {"preset": "diverse", "classes": [{"name": "a", "prompts": ["a fox"]}, CLASSES[1]], "variables": {"place": ["x"]}},
    {"combine": "sampled", "filter": {"threshold": 0.3}, "max_attempts": 7},
    {"classes": [{"name": f"{k} {{é", "label": f"l{k}", "negative_prompt": "x", "prompts": [f"{{{{{k}}}}} {{style}}",
                                                                                      "{place}."]} for k in range(3)]},
    {"generation": {"num_inference_steps": {"min": 1, "max": 3}, "scheduler": "ddim", "output_format": "webp",
                    "width": 72, "height": 64}},
]  # fmt: skip


def zipped_recipe(bench: Workbench, dataset_id: str) -> dict:
    archive = zipfile.ZipFile(io.BytesIO(bench.http.get(f"/datasets/{dataset_id}/archive.zip").content))
    document: dict = json.loads(archive.read("dataset.json"))
    return document


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipe_in_the_zip_is_a_request_for_the_same_images(bench: Workbench, recipe: dict) -> None:
    made = bench.make("first", train_per_class=3, test_per_class=2, **recipe)
    assert upload(bench.http, made["id"], [picture(1)], class_name=made["classes"][0]["name"]).status_code in (201, 409)
    document = zipped_recipe(bench, made["id"])
    assert document["preset"] == recipe.get("preset")
    again = {**document["recipe"], "name": "again"}
    told = bench.http.post("/datasets?dry_run=true", json=again).json()
    asked = {"name": "asked", "train_per_class": 3, "test_per_class": 2, **RECIPE, **recipe}
    assert told["samples"] == bench.http.post("/datasets?dry_run=true", json=asked).json()["samples"]
    bench.work(bench.http.post("/datasets", json=again).json()["job_id"])
    generated = {name: data for name, data in bench.files("first").items() if "-" in Path(name).name}
    assert len(generated) > 4
    assert bench.files("again") == generated


def test_the_recipe_in_each_shard_is_that_of_the_zip_and_no_sample(bench: Workbench, tmp_path: Path) -> None:
    made = bench.make("d", train_per_class=6, test_per_class=5)
    document = zipped_recipe(bench, made["id"])
    paths = []
    for shard in bench.http.get(f"/datasets/{made['id']}/shards?samples_per_shard=10").json()["shards"]:
        paths.append(str(tmp_path / shard["name"]))
        Path(paths[-1]).write_bytes(bench.http.get(shard["url"]).content)
        with tarfile.open(paths[-1]) as archive:
            member = archive.extractfile("__dataset.json__")
            assert member is not None
            assert json.load(member) == document
    assert document["counts"] == [
        {"split": split, "source": "synthetic", "num_images": num} for split, num in (("test", 10), ("train", 12))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
        import webdataset

        samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
        loaded = datasets.load_dataset("webdataset", data_files=paths, cache_dir=str(tmp_path / "cache"), split="train")
    assert len(samples) == len(loaded) == 22
    assert {frozenset(sample) - {"__local_path__"} for sample in samples} == {
        frozenset({"__key__", "__url__", "png", "json", "cls"})
    }


def test_prompts_from_before_there_were_recipes_keep_their_braces(bench: Workbench) -> None:
    made = bench.make("d", train_per_class=1)
    with bench.db.transaction() as session:
        session.get_one(Dataset, made["id"]).recipe = None
        texts = session.get_one(DatasetTexts, made["id"])
        texts.variables = {}
        texts.classes = [{**entry, "prompts": ["a {plain} fox"]} for entry in texts.classes]
    recipe = zipped_recipe(bench, made["id"])["recipe"]
    plan = bench.http.post("/datasets?dry_run=true", json={**recipe, "name": "again"})
    assert plan.status_code == 200, plan.text
    assert {sample["prompt"] for sample in plan.json()["samples"]} == {"a {plain} fox"}
