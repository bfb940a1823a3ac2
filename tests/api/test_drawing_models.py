"""Several diffusion models on the wire, with the real code on tiny weights: named, refused, evicted, recorded."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from app.db.session import Database
from app.errors import Invalid
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import demo_pack_folder, sha256_of
from app.node.client import NodeClient
from app.services.generations.job import GenerateJob
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.lora_files import lora_tensors, write_lora
from testing.node import Node, make_settings, serve
from testing.tiny_diffusion import TinyDiffusion, build_seeded, cut_weights, other_weights
from testing.waiting import wait_until
from testing.workbench import Workbench

FOX = {"prompt": "a fox", "num_inference_steps": 2, "seed": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("models")
    found = {name: build_seeded(root / name, seed) for seed, name in enumerate(("one", "two", "three"), 1)}
    found["cut"] = cut_weights(build_seeded(root / "cut", 9))
    (root / "old.ckpt").write_bytes(b"\x80\x04")
    return {**found, "old": root / "old.ckpt", "gone": root / "gone"}


Start = Callable[..., AbstractContextManager[Node]]


@pytest.fixture(scope="module")
def start(folders: Mapping[str, Path], sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    @contextmanager
    def started(data: Path, models: Mapping[str, Path], **changes: Any) -> Iterator[Node]:
        if not (data / "foxhound.db").exists():
            shutil.copyfile(sqlite_template, data / "foxhound.db")
        settings = make_settings(
            data,
            f"sqlite:///{data / 'foxhound.db'}",
            models=",".join(f"{name}={path}" for name, path in models.items()),
            **changes,
        )
        tiny = TinyDiffusion(tmp_path_factory.mktemp("tiny"))
        with serve(settings, tiny) as served:
            wait_until(lambda: served.http.get("/readyz").status_code == 200)
            yield served

    return started


@pytest.fixture(scope="module")
def node(start: Start, folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose bound has room for one of its models at a time: each takes between 1 and 2 MB."""
    loras = tmp_path_factory.mktemp("loras")
    parts = load_diffusion(TinyDiffusion(tmp_path_factory.mktemp("base")).tiny, torch.device("cpu"), torch.float32)
    write_lora(loras / "style.safetensors", lora_tensors(parts.unet, parts.text_encoder, alpha=4.0))
    with start(tmp_path_factory.mktemp("node"), folders, loras_dir=loras, models_mb=2) as served:
        yield served


def drawing(node: Node) -> dict[str, Any]:
    """The diffusion models that `/capabilities` lists, by name."""
    models = node.http.get("/capabilities").json()["models"]
    return {one["drawing"]["name"]: one for one in models.values() if one["drawing"]}


def generate(node: Node, **changes: Any) -> dict[str, Any]:
    answer = node.http.post("/generate", json={**FOX, **changes}, timeout=60)
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def sha(generation: dict[str, Any]) -> str:
    return str(generation["images"][0]["sha256"])


def test_models_are_listed_with_what_they_draw_or_why_not(node: Node) -> None:
    models = drawing(node)
    assert list(models) == ["demo", "one", "two", "three", "cut", "old", "gone"]
    assert [name for name, one in models.items() if one["drawing"]["is_default"]] == ["demo"]
    one = models["one"]["drawing"]
    assert {name: one[name] for name in ("native_size", "min_side", "max_side", "prediction_type", "speeds")} == {
        "native_size": 64,
        "min_side": 16,
        "max_side": 192,
        "prediction_type": "epsilon",
        "speeds": ["exact", "balanced"],
    }
    assert one["loras"] == ["style"]
    assert one["num_bytes"] > 100_000
    assert one["step_ms"] is not None, "its networks are built like the default one's, whose cost is known"
    assert {name: each["state"] for name, each in models.items() if not each["drawing"]["fits"]} == {
        "cut": "failed",
        "old": "failed",
        "gone": "failed",
    }
    assert "pickle" in models["old"]["detail"]
    assert "truncated" in models["cut"]["detail"]
    assert "nothing at its path" in models["gone"]["detail"]
    assert node.http.get("/readyz").json()["models"].keys() == {"diffusion", "clip", "classifier", "backbone"}


def test_a_model_draws_is_recorded_and_repeated(node: Node, folders: Mapping[str, Path]) -> None:
    plain, one, two = generate(node), generate(node, model="one"), generate(node, model="two")
    assert len({sha(plain), sha(one), sha(two)}) == 3
    assert sha(generate(node, model="demo")) == sha(plain), "the default one has a name too"
    assert [each["parameters"]["model"] for each in (plain, one, two)] == [None, "one", "two"]
    image = one["images"][0]
    lineage = node.http.get(f"/images/{image['id']}/metadata").json()["lineage"]
    [unet] = (folders["one"] / "unet").glob("*.safetensors")
    assert lineage["model"] == lineage["pack"] == one["model"]["name"] == "one"
    assert lineage["model_files"][f"unet/{unet.name}"] == sha256_of(unet)
    assert lineage["pack_revision"] == one["model"]["revision"] != ""
    assert b"Model: one" in node.http.get(image["url"]).content
    plain_lineage = node.http.get(f"/images/{plain['images'][0]['id']}/metadata").json()["lineage"]
    assert not {"model", "model_files"} & plain_lineage.keys()
    assert sha(node.http.post("/generate", json=one["parameters"], timeout=60).json()) == sha(one)
    repeated = node.http.post(f"/generations/{plain['id']}/repeat", json={"model": "two"}, timeout=60)
    assert sha(repeated.json()) == sha(two)
    again = node.http.post(f"/generations/{one['id']}/repeat", json={}, timeout=60)
    assert sha(again.json()) == sha(one)


def test_loading_and_evicting_under_load_loses_no_request_and_changes_no_byte(node: Node) -> None:
    kinds: list[dict[str, Any]] = [
        {"model": model, "loras": loras}
        for model in (None, "one", "two", "three")
        for loras in ([], [{"name": "style"}])
    ]
    alone = [sha(generate(node, **kind)) for kind in kinds]
    assert len(set(alone)) == len(kinds)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda kind: sha(generate(node, **kind)), [*kinds, *reversed(kinds), *kinds]))
    assert together == [*alone, *reversed(alone), *alone]
    loaded = [name for name, one in drawing(node).items() if one["drawing"]["is_loaded"]]
    assert len(loaded) == 2, "the default one, and one beside it"


@pytest.mark.parametrize(
    ("changes", "pointer", "detail"),
    [
        ({"model": "none"}, "#/model", "It has demo, one, three, two."),
        ({"model": "cut"}, "#/model", "truncated"),
        ({"model": "old"}, "#/model", "pickle"),
        ({"model": "../one"}, "#/model", "no model of this name"),
        ({"model": "one\nModel: x"}, "#/model", "no model of this name"),
        ({"model": "DEMO"}, "#/model", "no model of this name"),
        ({"model": "x" * 201}, "#/model", "200"),
        ({"model": ""}, "#/model", "1"),
        ({"model": "\x00"}, "#/model", ""),
        ({"model": 1}, "#/model", ""),
        ({"model": ["one"]}, "#/model", ""),
        ({"model": "one", "width": 512}, "#/width", "for the model one"),
        ({"model": "one", "speed": "fast"}, "#/speed", ""),
        ({"model": "one", "loras": [{"name": "none"}]}, "#/loras/0/name", "It has style."),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    node: Node, changes: dict[str, Any], pointer: str, detail: str
) -> None:
    answer = node.http.post("/generate", json={**FOX, **changes})
    assert answer.status_code == 422, answer.text
    errors = {error["pointer"]: error for error in answer.json()["errors"]}
    assert detail in errors[pointer]["detail"]
    assert "Model: x" not in answer.text, "what was sent is not repeated"


def test_a_dataset_names_a_model_for_all_of_its_images(node: Node) -> None:
    bench = Workbench(node)
    body: dict[str, Any] = {
        "classes": [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")],
        "train_per_class": 1,
        "variables": {},
    }
    generation = {"num_inference_steps": 2, "width": 64, "height": 64, "model": "one"}
    plan = node.http.post("/datasets?dry_run=true", json={"name": "of-one", **body, "generation": generation})
    assert plan.status_code == 200, plan.text
    read = bench.make("of-one", **body, generation=generation)
    assert (read["status"], read["generation"]["model"]) == ("ready", "one")
    [image, *_] = node.http.get(f"/datasets/{read['id']}/images").json()["items"]
    lineage = node.http.get(f"{image['url']}/metadata").json()["lineage"]
    assert (lineage["model"], lineage["pack"]) == ("one", "one")
    refused = node.http.post("/datasets", json={"name": "of-none", **body, "generation": {"model": "none"}})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/generation/model")
    bench.close()


def test_other_services_clients_name_models(node: Node) -> None:
    plain, one = sha(generate(node)), sha(generate(node, model="one"))
    ids = [model["id"] for model in node.http.get("/v1/models").json()["data"]]
    assert ids == ["demo", "one", "two", "three", "clip"]
    asked = {"prompt": "a fox", "size": "64x64", "seed": 3, "num_inference_steps": 2}

    def newest() -> str:
        return sha(node.http.get("/generations?limit=1").json()["items"][0])

    for model, expected in (("one", one), ("gpt-image-1", plain), ("demo", plain)):
        assert node.http.post("/v1/images/generations", json={**asked, "model": model}).status_code == 200
        assert newest() == expected, model
    titles = [model["title"] for model in node.http.get("/sdapi/v1/sd-models").json()]
    assert titles == ["demo [fake]", "one", "two", "three"]
    web = {
        "prompt": "a fox",
        "width": 64,
        "height": 64,
        "seed": 3,
        "steps": 2,
        "cfg_scale": 7.5,
        "sampler_name": "PLMS",
    }
    for title, expected in (("one", one), (titles[0], plain)):
        named = {"override_settings": {"sd_model_checkpoint": title}}
        assert node.http.post("/sdapi/v1/txt2img", json={**web, **named}).status_code == 200
        assert newest() == expected, title
    refused = node.http.post("/sdapi/v1/txt2img", json={**web, "override_settings": {"sd_model_checkpoint": "none"}})
    assert refused.status_code == 422
    assert node.http.post("/sdapi/v1/options", json={"sd_model_checkpoint": "one"}).status_code == 200
    assert node.http.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == "one"
    assert node.http.post("/sdapi/v1/txt2img", json=web).status_code == 200
    assert newest() == one
    assert node.http.post("/sdapi/v1/options", json={"sd_model_checkpoint": titles[0]}).status_code == 200
    assert node.http.post("/sdapi/v1/txt2img", json=web).status_code == 200
    assert newest() == plain


def test_a_file_that_is_replaced_while_the_node_runs(start: Start, tmp_path: Path) -> None:
    """A loaded model goes on with the weights that it has; one that is not loaded is refused."""
    models = {name: build_seeded(tmp_path / name, seed) for seed, name in enumerate(("loaded", "waiting"), 1)}
    (tmp_path / "node").mkdir()
    with start(tmp_path / "node", models) as node:
        before = generate(node, model="loaded")
        for folder in models.values():
            other_weights(folder)
        assert sha(generate(node, model="loaded")) == sha(before)
        answer = node.http.post("/generate", json={**FOX, "model": "waiting"})
        assert (answer.status_code, answer.json()["code"]) == (422, "model_not_found")
        assert "Restart the node" in answer.json()["detail"]
        assert "replaced" in drawing(node)["waiting"]["detail"]
        assert sha(generate(node)) != sha(before)


def test_jobs_of_a_model_that_is_gone_after_a_restart_fail_with_its_name_s_code(start: Start, tmp_path: Path) -> None:
    models = {"one": build_seeded(tmp_path / "one", 1)}
    data = tmp_path / "node"
    data.mkdir()
    with start(data, models) as node:
        accepted = node.http.post("/generate", json={**FOX, "model": "one"}, headers={"Prefer": "respond-async"})
        assert accepted.status_code == 202, accepted.text
        made = generate(node, model="one")
    with start(data, {}) as node:
        db, client = Database(node.settings.resolved_database_url), NodeClient(node.settings.engine_socket)
        with pytest.raises(Invalid, match="The node has no model of this name") as caught:
            run_job(db, accepted.json()["id"], GenerateJob(db, DataFolder(data), client))
        assert caught.value.code == "model_not_found"
        repeated = node.http.post(f"/generations/{made['id']}/repeat", json={})
        assert (repeated.status_code, repeated.json()["errors"][0]["pointer"]) == (422, "#/model")
        assert node.http.get(f"/generations/{made['id']}").json()["parameters"]["model"] == "one"
        client.close()
        db.close()


def test_a_model_that_exceeds_the_bound_alone_is_refused_before_it_is_read(start: Start, tmp_path: Path) -> None:
    with start(tmp_path, {"pack": demo_pack_folder()}, models_mb=1) as node:
        assert "at most 1 beside its default model (FOXHOUND_MODELS_MB)" in drawing(node)["pack"]["detail"]
        answer = node.http.post("/generate", json={**FOX, "model": "pack"})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/model")


def test_a_pack_of_another_architecture_and_size_is_a_model_too(start: Start, tmp_path: Path) -> None:
    with start(tmp_path, {"pack": demo_pack_folder()}) as node:
        before = drawing(node)["pack"]["drawing"]
        assert (before["native_size"], before["default_noise_scheduler"], before["step_ms"]) == (128, "dpmpp_2m", None)
        settings = {"prompt": "a fox", "num_inference_steps": 2, "model": "pack"}
        read = node.http.post("/generate", json=settings, timeout=60).json()
        assert (read["images"][0]["width"], read["parameters"]["scheduler"]) == (128, "dpmpp_2m")
        after = drawing(node)["pack"]["drawing"]
        assert (after["is_loaded"], after["step_ms"] > 0) == (True, True)
