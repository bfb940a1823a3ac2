"""Lists that can be asked, unknown query parameters, names in paths, and refusals that name what is in the way."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.db.base import new_id
from app.db.models import Generation
from app.main import ROUTERS
from app.storage.layout import DataFolder
from testing.node import Node
from testing.trained_models import add_model
from testing.uploads import CLASSES, create_empty, fill
from testing.workbench import Workbench

PROMPT = {"prompt": "a fox", "num_inference_steps": 1}
RECIPE = [{"name": "fox", "prompts": ["a fox"]}, {"name": "dog", "prompts": ["a dog"]}]
LISTS = ("/jobs", "/generations", "/datasets", "/models", "/train-jobs")


def ids(http: httpx.Client, path: str, **query: str) -> list[str]:
    """Return the ids of all items of a list, read in pages of two."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = http.get(path, params={**query, "limit": "2", **cursor})
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            assert page["total"] == len(found)
            return found
        cursor = {"cursor": page["next_cursor"]}


@pytest.fixture
def made(bench: Workbench) -> dict[str, Any]:
    """Three datasets, two models and two train jobs on the first, jobs and generations."""
    http = bench.http
    datasets = [create_empty(http, name)["id"] for name in ("one", "two.b", "three")]
    fill(http, datasets[0])
    folder = DataFolder(bench.data_dir)
    models = [add_model(bench.db, folder, CLASSES, dataset_id=datasets[0], name=name) for name in ("red-blue", "other")]
    train = http.post("/train-jobs", json={"dataset_id": datasets[0], "name": "waiting"}).json()["id"]
    jobs = [http.post("/generate", json=PROMPT, headers={"Prefer": "respond-async"}).json()["id"] for _ in range(3)]
    generations = [http.post("/generate", json=PROMPT).json()["id"] for _ in range(3)]
    return {"datasets": datasets, "models": models, "train": train, "jobs": jobs, "generations": generations}


def test_lists_are_filtered_across_their_pages(bench: Workbench, made: dict[str, Any]) -> None:
    http, (one, two, three), models = bench.http, made["datasets"], made["models"]
    assert ids(http, "/datasets") == [three, two, one]
    assert ids(http, "/datasets", name="two.b") == [two]
    assert ids(http, "/datasets", name="nothing") == []
    assert ids(http, "/datasets", status="ready") == [one]
    assert ids(http, "/datasets", status="empty") == [three, two]
    assert ids(http, "/models", name="other") == [models[1]]
    assert ids(http, "/models", dataset_id=one) == models[::-1]
    assert ids(http, "/models", dataset_id=two) == []
    assert ids(http, "/train-jobs", name="waiting") == ids(http, "/train-jobs", status="queued") == [made["train"]]
    assert ids(http, "/train-jobs", dataset_id=one) == [made["train"], *models[::-1]]
    assert ids(http, "/jobs", kind="generate", status="queued") == made["jobs"][::-1]
    assert ids(http, "/jobs", dataset_id=one) == [made["train"], *models[::-1]]
    assert ids(http, "/jobs", dataset_id=one, status="queued") == [made["train"]]
    assert http.get("/images").json()["total"] is None


def test_created_after_counts_whole_moments_in_every_list(bench: Workbench, made: dict[str, Any]) -> None:
    for path in LISTS:
        items = bench.http.get(path).json()["items"]
        newest, oldest = items[0]["created_at"], items[-1]["created_at"]
        assert newest.endswith("Z")
        assert len(ids(bench.http, path, created_after="0001-01-01T00:00:00+14:00")) == len(items), path
        assert ids(bench.http, path, created_after="9999-12-31T23:59:59-14:00") == [], path
        before = oldest[:-5] + "Z"  # the second in which the oldest was created, as clients write it
        assert len(ids(bench.http, path, created_after=before)) == len(items), path
        unescaped = bench.http.get(f"{path}?created_after=9999-01-01T00:00:00+00:00")
        assert (unescaped.status_code, unescaped.json()["items"]) == (200, [])
        for wrong in ("2026-12-01T08:00:00", "yesterday", "0", "1700000000", "2026-12-01"):
            assert bench.http.get(path, params={"created_after": wrong}).status_code == 422, (path, wrong)


def test_a_model_of_a_list_has_no_lineage_and_no_tables(bench: Workbench, made: dict[str, Any]) -> None:
    listed = bench.http.get("/models").json()["items"][0]
    single = bench.http.get(f"/models/{listed['id']}").json()
    assert "lineage" in single
    assert "lineage" not in listed
    assert not re.search("confusion_matrix|per_class", str(listed))


def routes() -> Iterator[tuple[str, str]]:
    for module in ROUTERS:
        for route in module.router.routes:
            yield from ((method, route.path) for method in route.methods - {"HEAD"})


def test_no_route_takes_a_query_parameter_that_it_does_not_have(shared_node: Node) -> None:
    unknown = {"surprise": "1"}
    for method, path in routes():
        filled = path.replace("{index}", "0").replace("{split}", "train").replace("{picture}", "accuracy")
        filled = re.sub(r"\{\w+\}", "some-name", filled)
        body: dict[str, Any] | None = {} if method == "POST" else None
        answer = shared_node.http.request(method, filled, params=unknown, json=body)
        problem = answer.json()
        assert answer.status_code == 422, (method, path)
        if "#query/surprise" not in [fault["pointer"] for fault in problem.get("errors", [])]:
            assert method == "POST", (method, path)  # its body is read first, and has faults of its own


def test_a_wrong_query_parameter_is_told_with_those_that_exist(shared_node: Node) -> None:
    problem = shared_node.http.get("/datasets", params={"nam": "x", "limit": "1"}).json()
    assert (problem["status"], problem["code"]) == (422, "invalid_request")
    [fault] = problem["errors"]
    assert (fault["pointer"], fault["code"]) == ("#query/nam", "unknown_parameter")
    assert "Did you mean name?" in fault["detail"]
    assert all(name in fault["detail"] for name in ("limit", "cursor", "name", "status", "created_after"))
    assert problem["detail"].startswith("Query parameter nam: ")
    two = shared_node.http.get("/livez?a=1&b~/=2").json()
    assert [fault["pointer"] for fault in two["errors"]] == ["#query/a", "#query/b~0~1"]
    assert "This route has none." in two["errors"][0]["detail"]
    assert shared_node.http.get("/docs?theme=dark").status_code == 200
    recipe = {"name": "not-made", "classes": RECIPE}
    assert shared_node.http.post("/datasets?dryrun=true", json=recipe).status_code == 422
    assert shared_node.http.get("/datasets/not-made").status_code == 404


def test_names_stand_for_ids_in_paths(bench: Workbench, made: dict[str, Any]) -> None:
    http, (one, two, _), model = bench.http, made["datasets"], made["models"][0]
    for path, name, object_id in (
        ("/datasets/{}", "two.b", two),
        ("/datasets/{}/recipe", "two.b", two),
        ("/datasets/{}/images", "one", one),
        ("/datasets/{}/version", "one", one),
        ("/datasets/{}/archive.zip", "one", one),
        ("/models/{}", "red-blue", model),
        ("/models/{}/weights", "red-blue", model),
        ("/models/{}/evaluations", "red-blue", model),
        ("/train-jobs/{}", "waiting", made["train"]),
    ):
        by_name, by_id = http.get(path.format(name)), http.get(path.format(object_id))
        assert (by_name.status_code, by_name.content) == (200, by_id.content), path
    assert http.post("/train-jobs/waiting/cancel").json()["status"] == "cancelled"
    again = http.post("/train-jobs", json={"dataset_id": one, "name": "waiting"}).json()["id"]
    assert http.get("/train-jobs/waiting").json()["id"] == again  # the newest of the name
    for path in ("/datasets/nothing", "/models/nothing", "/train-jobs/nothing", f"/datasets/{new_id()}"):
        assert http.get(path).status_code == 404
    assert [http.get(f"/jobs/{name}").status_code for name in ("waiting", "two.b")] == [404, 404]
    assert http.delete("/datasets/two.b").status_code == 204
    assert http.get(f"/datasets/{two}").status_code == 404


def test_no_name_looks_like_an_id_or_a_path(bench: Workbench) -> None:
    http = bench.http
    for name in (new_id(), new_id().replace("-", "")):
        problem = http.post("/datasets", json={"name": name, "classes": RECIPE}).json()
        assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "#/name")
        assert problem["errors"][0]["code"] == "bad_dataset_name"
    body = {"dataset": {"name": "d", "classes": RECIPE}, "name": "compare"}
    assert http.post("/train-jobs", json=body).status_code == 409


def test_a_conflict_names_what_is_in_the_way(bench: Workbench, made: dict[str, Any]) -> None:
    http, (one, _, _) = bench.http, made["datasets"]

    def existing(path: str, body: dict[str, Any]) -> tuple[int, str, str]:
        answer = http.post(path, json=body)
        return answer.status_code, answer.json()["code"], answer.json().get("existing_id")

    recipe = {"name": "one", "classes": RECIPE}
    assert existing("/datasets", recipe) == (409, "dataset_name_taken", one)
    assert existing("/datasets?dry_run=true", recipe) == (409, "dataset_name_taken", one)
    taken = {"dataset_id": one, "name": "red-blue"}
    assert existing("/train-jobs", taken) == (409, "model_name_taken", made["models"][0])
    training = {"dataset_id": one, "name": "waiting"}
    assert existing("/train-jobs", training) == (409, "model_name_taken", made["train"])
    assert existing("/datasets/one/extend", {"train_per_class": 1}) == (409, "dataset_in_use", made["train"])
    generating = http.post("/datasets", json={"name": "drawn", "classes": RECIPE}).json()
    found = existing("/train-jobs", {"dataset_id": generating["id"]})
    assert found == (409, "dataset_not_ready", generating["job_id"])


def test_times_of_lists_are_not_rounded_down(bench: Workbench, made: dict[str, Any]) -> None:
    with bench.db.snapshot() as session:
        moment = session.get_one(Generation, made["generations"][1]).created_at
    later = ids(bench.http, "/generations", created_after=(moment + timedelta(microseconds=1)).isoformat())
    assert made["generations"][2] in later
    assert made["generations"][0] not in later
