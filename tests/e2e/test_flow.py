"""The practical from end to end, through HTTP and real processes, with the worker killed in the middle."""

import io
import os
import signal
from pathlib import Path

import httpx
import safetensors.numpy
from PIL import Image
from torchvision.datasets import ImageFolder

from testing.waiting import wait_for
from tests.e2e.asking import DOG, FOX, dataset, files_of, follow
from tests.e2e.conftest import ServedNode, served


def test_from_two_prompts_to_a_classifier_although_the_worker_is_killed(live: ServedNode) -> None:
    http = live.http
    created = http.post("/datasets", json=dataset())
    assert created.status_code == 202, created.text
    assert created.headers["location"] == f"/datasets/{created.json()['id']}"
    job_id = created.json()["job_id"]
    wait_for(lambda: http.get(f"/jobs/{job_id}").json(), lambda job: job["progress"]["done"] >= 4)
    folder = live.data_dir / "datasets" / "fox-dog"
    before = {name: os.stat(folder / name).st_mtime_ns for name in files_of(folder)}
    os.kill(live.child("worker"), signal.SIGKILL)

    job = follow(http, job_id)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert job["progress"].items() >= {"done": 16, "total": 16, "unit": "images"}.items()
    after = {name: os.stat(folder / name).st_mtime_ns for name in files_of(folder)}
    redone = [name for name, changed_at in before.items() if after[name] != changed_at]
    assert len(redone) <= 2  # one chunk

    read = http.get(f"/datasets/{created.json()['id']}").json()
    assert (read["status"], read["num_images"]) == ("ready", 16)
    assert [(entry["num_train"], entry["num_test"]) for entry in read["classes"]] == [(6, 2), (6, 2)]
    assert ImageFolder(folder / "train").classes == ["dog", "fox"]
    assert len(ImageFolder(folder / "train")) == 12
    images = http.get(f"/datasets/{read['id']}/images?limit=100").json()["items"]
    assert len({image["sha256"] for image in images}) == len({image["seed"] for image in images}) == 16

    model_id = _train(http, read["id"])
    _classify_fresh(http, model_id)
    _same_request_same_files(live, files_of(folder))


def _train(http: httpx.Client, dataset_id: str) -> str:
    created = http.post("/train-jobs", json={"dataset_id": dataset_id, "name": "fox-or-dog", "epochs": 30})
    assert created.status_code == 202, created.text
    job = follow(http, created.json()["id"])
    assert (job["status"], job["error"]) == ("succeeded", None)
    train_job = http.get(f"/train-jobs/{job['id']}").json()
    assert [epoch["epoch"] for epoch in train_job["epochs"]] == list(range(1, 31))
    assert train_job["epochs"][-1]["train_loss"] < train_job["epochs"][0]["train_loss"]
    model = http.get(f"/models/{train_job['model_id']}").json()
    assert (model["name"], model["classes"]) == ("fox-or-dog", ["fox", "dog"])
    weights = safetensors.numpy.load(http.get(f"/models/{model['id']}/weights").content)
    assert weights["fc.weight"].shape == (2, 512)
    return str(model["id"])


def _classify_fresh(http: httpx.Client, model_id: str) -> None:
    for prompt, label in ((FOX, "fox"), (DOG, "dog")):
        fields = {"prompt": prompt, "seed": 123_456, "num_inference_steps": 20}
        image = http.post("/generate", json=fields, headers={"Accept": "image/png"}).content
        assert Image.open(io.BytesIO(image)).size == (128, 128)
        for model in ("fox-or-dog", model_id):
            answer = http.post("/classify", data={"model": model}, files={"image": image}).json()
            assert answer["model"]["id"] == model_id
            assert answer["predictions"][0]["label"] == label


def _same_request_same_files(live: ServedNode, files: dict[str, bytes]) -> None:
    created = live.http.post("/datasets", json=dataset(name="again")).json()
    assert follow(live.http, created["job_id"])["status"] == "succeeded"
    assert files_of(live.data_dir / "datasets" / "again") == files


def test_prompts_in_classifier_out_in_one_call_and_a_generation_as_a_job(shared_live: ServedNode) -> None:
    http = shared_live.http
    small = dataset(name="small", train_per_class=3, test_per_class=1)
    train = http.post("/train-jobs", json={"dataset": small, "epochs": 5}).json()
    body = {"prompt": FOX, "num_inference_steps": 5, "num_images_per_prompt": 2, "seed": 3}
    accepted = http.post("/generate", json=body, headers={"Prefer": "respond-async"})
    assert accepted.status_code == 202
    generate_job = follow(http, accepted.headers["location"].removeprefix("/jobs/"))
    generation = http.get(f"/generations/{generate_job['result']['generation_id']}").json()
    inline = http.post("/generate", json=body).json()
    assert [image["sha256"] for image in generation["images"]] == [image["sha256"] for image in inline["images"]]

    job = follow(http, train["id"])
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert job["progress"]["done"] == job["progress"]["total"] == 2 * 8 + 5
    assert http.get("/models").json()["items"][0]["name"] == "small-1"


def test_a_node_that_is_stopped_goes_on_where_it_was(tmp_path: Path, sqlite_url: str) -> None:
    with served(tmp_path / "data", sqlite_url) as node:
        created = node.http.post("/datasets", json=dataset()).json()
        path = f"/jobs/{created['job_id']}"
        wait_for(lambda: node.http.get(path).json(), lambda job: job["progress"]["done"] >= 2)
    with served(tmp_path / "data", sqlite_url) as node:
        job = follow(node.http, created["job_id"])
        assert (job["status"], job["error"]) == ("succeeded", None)
        assert node.http.get(f"/datasets/{created['id']}").json()["num_images"] == 16


def test_a_cancelled_dataset_stops_and_stays_cancelled(shared_live: ServedNode) -> None:
    http = shared_live.http
    created = http.post("/datasets", json=dataset(name="cancelled", train_per_class=200)).json()
    wait_for(lambda: http.get(f"/jobs/{created['job_id']}").json(), lambda job: job["progress"]["done"] >= 2)
    assert http.delete(f"/datasets/{created['id']}").status_code == 409
    assert http.post(f"/jobs/{created['job_id']}/cancel").status_code == 200
    assert follow(http, created["job_id"])["status"] == "cancelled"
    read = http.get(f"/datasets/{created['id']}").json()
    assert read["status"] == "cancelled"
    assert read["num_images"] == len(files_of(shared_live.data_dir / "datasets" / "cancelled")) < 404
    refused = http.post("/train-jobs", json={"dataset_id": created["id"]})
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_not_ready")
    assert http.post("/datasets", json=dataset(name="cancelled")).status_code == 409
    assert http.delete(f"/datasets/{created['id']}").status_code == 204
    assert not (shared_live.data_dir / "datasets" / "cancelled").exists()


def test_a_retried_dataset_keeps_its_images_and_makes_the_rest(shared_live: ServedNode) -> None:
    http, folder = shared_live.http, shared_live.data_dir / "datasets" / "retried"
    created = http.post("/datasets", json=dataset(name="retried", train_per_class=12)).json()
    job = wait_for(lambda: http.get(f"/jobs/{created['job_id']}").json(), lambda job: job["progress"]["done"] >= 2)
    http.post(f"/jobs/{job['id']}/cancel")
    assert follow(http, job["id"])["status"] == "cancelled"
    before = files_of(folder)

    retried = http.post(f"/jobs/{job['id']}/retry").json()
    assert follow(http, retried["id"])["status"] == "succeeded"

    read, after = http.get(f"/datasets/{created['id']}").json(), files_of(folder)
    assert (read["status"], read["num_images"], len(after)) == ("ready", 28, 28)
    assert before.items() < after.items()


def test_readmes_own_prompts_leak_nothing_and_a_copy_with_other_pixels_does(shared_live: ServedNode) -> None:
    http = shared_live.http
    created = http.post("/datasets", json=dataset(name="leaky", train_per_class=9, test_per_class=5)).json()
    assert follow(http, created["job_id"])["status"] == "succeeded"
    path = f"/datasets/{created['id']}"
    report = http.get(f"{path}/report").json()
    assert (report["near_duplicate_cosine_from"], report["num_judged"]) == ("pack", 28)
    assert [report[kind]["num_pairs"] for kind in ("near_duplicates", "leakage")] == [0, 0], report["near_duplicates"]

    original = http.get(f"{path}/images?split=train&limit=1").json()["items"][0]
    picture = Image.open(io.BytesIO(http.get(original["url"]).content))
    for x in range(0, 128, 16):
        picture.putpixel((x, x), (255, 0, 255))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    fields = {"class_name": original["class_name"], "split": "test"}
    uploaded = http.post(f"{path}/images", data=fields, files={"files": buffer.getvalue()}).json()
    pairs = http.get(f"{path}/report").json()["leakage"]["pairs"]
    assert [set(pair["image_ids"]) for pair in pairs] == [{original["id"], uploaded["files"][0]["image_id"]}]
    page = http.get(f"{path}/report", headers={"Accept": "text/html"}).text
    assert "copies differ from other images of the same prompt" in page


def test_a_diverse_dataset_holds_what_clip_agrees_with(shared_live: ServedNode) -> None:
    http = shared_live.http
    classes = [{"name": "fox", "prompts": ["a red fox"]}, {"name": "dog", "prompts": ["a golden retriever"]}]
    body = dataset(name="diverse", classes=classes, preset="diverse", train_per_class=4, test_per_class=1)
    plan = http.post("/datasets?dry_run=true", json=body).json()
    created = http.post("/datasets", json=body).json()
    assert follow(http, created["job_id"])["status"] == "succeeded"
    read = http.get(f"/datasets/{created['id']}").json()
    assert (read["status"], read["num_images"]) == ("ready", 10)
    folder = shared_live.data_dir / "datasets" / "diverse"
    assert len(ImageFolder(folder / "train")) == 8
    listed = f"/datasets/{read['id']}/images?limit=100"
    images = [http.get(f"{image['url']}/metadata").json() for image in http.get(listed).json()["items"]]
    for image in images:
        own = {score["label"]: score["probability"] for score in image["label_probabilities"]}[image["class_name"]]
        assert own >= 0.5
        assert 1 <= image["lineage"]["guidance_scale"] <= 5
    rejected = http.get(f"{listed}&decision=rejected").json()["items"]
    assert len(rejected) == read["num_rejected"] == len(files_of(shared_live.data_dir / "rejected" / "diverse"))
    tried = {image["seed"]: image for image in [*images, *rejected]}
    assert {sample["seed"] for sample in plan["samples"]} <= tried.keys()
