"""A recipe has a bound of its own, and is read at its own address."""

import json

import httpx
import pytest

from testing.recipes import LARGE, MAX_BYTES, long_negatives, many_classes
from testing.workbench import RECIPE, Workbench


def sized(num_bytes: int, char: str = "x") -> dict:
    """Return a request whose classes have exactly so many bytes of JSON, with this character in some of its texts."""
    body = many_classes(num=300, length=600)
    for entry in body["classes"][:10]:
        entry["negative_prompt"] = 100 * char
    compact = json.dumps({"classes": body["classes"]}, separators=(",", ":"), ensure_ascii=False)
    room = num_bytes - len(compact.encode())
    for entry in body["classes"]:
        added = min(room, 1_000)
        entry["prompts"][0] += "y" * added
        room -= added
    assert room == 0
    return body


@pytest.mark.parametrize("char", ["x", "é", "🦊"])
def test_the_bound_counts_bytes_and_is_exact(http: httpx.Client, char: str) -> None:
    for num_bytes, status in ((MAX_BYTES, 200), (MAX_BYTES + 1, 422)):
        body = sized(num_bytes, char)
        answer = http.post("/datasets?dry_run=true", json=body)
        assert answer.status_code == status, (num_bytes, answer.text[:300])
        sent_escaped = json.dumps(body, indent=2)  # however it is written
        headers = {"Content-Type": "application/json"}
        assert http.post("/datasets?dry_run=true", content=sent_escaped, headers=headers).status_code == status


def test_what_is_too_large_is_refused_wherever_a_recipe_is_taken(http: httpx.Client) -> None:
    body = sized(MAX_BYTES + 1)
    for path, sent, pointer in (
        ("/datasets", body, "#"),
        ("/datasets?dry_run=true", body, "#"),
        ("/train-jobs", {"dataset": body}, "#/dataset"),
    ):
        problem = http.post(path, json=sent).json()
        assert (problem["status"], problem["code"]) == (422, "recipe_too_large")
        assert [error["pointer"] for error in problem["errors"]] == [pointer]
        assert str(MAX_BYTES) in problem["detail"]
    assert http.get("/jobs").json()["items"] == []
    assert http.get("/datasets").json()["items"] == []
    assert http.get("/capabilities").json()["limits"]["recipe_bytes"] == MAX_BYTES


def test_a_preset_counts_too(http: httpx.Client) -> None:
    classes = [{"name": f"c{k}", "prompts": [f"{j} a fox" for j in range(100)]} for k in range(900)]
    body = {"name": "d", "classes": classes, "train_per_class": 1, "test_per_class": 0}
    assert http.post("/datasets?dry_run=true", json=body).status_code == 200
    refused = http.post("/datasets?dry_run=true", json={**body, "preset": "diverse"})
    assert (refused.status_code, refused.json()["code"]) == (422, "recipe_too_large")


RECIPES = [
    {},
    {"preset": "diverse", "variables": {}, "classes": [{"name": n, "prompts": [f"a {n}"]} for n in ("fox", "dog")]},
    {"preset": "diverse", "variables": {}, "classes": [{"name": n, "prompts": [f"{{style}} {n}"]} for n in "ab"]},
    {"combine": "sampled", "filter": {"threshold": 0.3}, "max_attempts": 7, "generation": {"guidance_scale": 1.5}},
    {"train_per_class": 0},
]  # fmt: skip


@pytest.mark.parametrize("changes", RECIPES)
def test_a_recipe_can_be_posted_again_and_gives_the_same(http: httpx.Client, changes: dict) -> None:
    body = {"name": "first", "train_per_class": 2, "test_per_class": 0, **RECIPE, **changes}
    made = http.post("/datasets", json=body).json()
    recipe = http.get(f"/datasets/{made['id']}/recipe").json()
    assert recipe["name"] == "first"
    assert http.post("/datasets", json=recipe).json()["code"] == "dataset_name_taken"
    again = http.post("/datasets", json={**recipe, "name": "again"})
    assert again.status_code == 202, again.text
    assert http.get(f"/datasets/{again.json()['id']}/recipe").json() == {**recipe, "name": "again"}
    plans = [http.post("/datasets?dry_run=true", json={**one, "name": "x"}).json() for one in (body, recipe)]
    assert plans[0]["samples"] == plans[1]["samples"]


@pytest.mark.parametrize("large", LARGE)
def test_a_large_recipe_can_be_posted_again(http: httpx.Client, large: object) -> None:
    body = large()  # type: ignore[operator]
    made = http.post("/datasets", json=body).json()
    recipe = http.get(f"/datasets/{made['id']}/recipe").json()
    assert [entry["prompts"] for entry in recipe["classes"]] == [entry["prompts"] for entry in body["classes"]]
    assert http.post("/datasets", json={**recipe, "name": "again"}).status_code == 202


def test_an_unknown_dataset_has_no_recipe(http: httpx.Client) -> None:
    assert http.get("/datasets/nope/recipe").status_code == 404


def test_the_recipe_goes_with_its_dataset(bench: Workbench) -> None:
    made = bench.make("d", train_per_class=1)
    assert bench.http.delete(f"/datasets/{made['id']}").status_code == 204
    assert bench.http.get(f"/datasets/{made['id']}/recipe").status_code == 404
    assert bench.http.post("/datasets", json={**long_negatives(), "name": "d"}).status_code == 202
