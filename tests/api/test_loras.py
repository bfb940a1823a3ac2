"""LoRAs and embeddings on the wire, with the real diffusion code on tiny weights."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import sha256_of
from testing.lora_files import CONVOLUTIONS, lora_tensors, write_lora
from testing.node import Node, make_settings, serve
from testing.tiny_diffusion import TinyDiffusion
from testing.waiting import wait_until

FOX = {"prompt": "a fox", "num_inference_steps": 2, "seed": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("loras")


@pytest.fixture(scope="module")
def adapted(folder: Path, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    models = TinyDiffusion(tmp_path_factory.mktemp("tiny"))
    parts = load_diffusion(models.tiny, torch.device("cpu"), torch.float32)
    write_lora(folder / "style.safetensors", lora_tensors(parts.unet, parts.text_encoder, alpha=4.0))
    write_lora(folder / "lines.safetensors", lora_tensors(parts.unet, ends=CONVOLUTIONS, rank=8, form="peft"))
    unknown = "lora_unet_down_blocks_9_attentions_0_proj_in"
    pair = {f"{unknown}.lora_{side}.weight": torch.zeros(4, 4) for side in ("down", "up")}
    write_lora(folder / "other.safetensors", pair)
    cut = write_lora(folder / "cut.safetensors", lora_tensors(parts.unet))
    cut.write_bytes(cut.read_bytes()[:100])
    torch.save({}, folder / "old.ckpt")
    save_file({"<fluffy>": torch.ones(2, parts.text_encoder.config.hidden_size)}, folder / "fluffy.safetensors")
    data = tmp_path_factory.mktemp("node")
    shutil.copyfile(sqlite_template, data / "foxhound.db")
    settings = make_settings(data, f"sqlite:///{data / 'foxhound.db'}", loras_dir=folder)
    with serve(settings, models) as served:
        wait_until(lambda: served.http.get("/readyz").status_code == 200)
        yield served


def generate(node: Node, **changes: Any) -> dict[str, Any]:
    answer = node.http.post("/generate", json={**FOX, **changes}, timeout=60)
    assert answer.status_code == 200, answer.text
    read: dict[str, Any] = answer.json()
    return read


def sha(generation: dict[str, Any]) -> str:
    return str(generation["images"][0]["sha256"])


def test_a_lora_changes_the_image_and_is_recorded(adapted: Node, folder: Path) -> None:
    plain, styled = generate(adapted), generate(adapted, loras=[{"name": "style", "weight": 0.8}])
    assert sha(plain) != sha(styled)
    assert (plain["parameters"]["loras"], plain["parameters"]["embeddings"]) == ([], [])
    assert styled["parameters"]["loras"] == [{"name": "style", "weight": 0.8}]
    lineage = adapted.http.get(f"/images/{styled['images'][0]['id']}/metadata").json()["lineage"]
    assert lineage["loras"] == [{"name": "style", "weight": 0.8}]
    assert lineage["adapter_files"] == {"style": sha256_of(folder / "style.safetensors")}
    plain_lineage = adapted.http.get(f"/images/{plain['images'][0]['id']}/metadata").json()["lineage"]
    assert not {"loras", "embeddings", "adapter_files"} & plain_lineage.keys()
    again = adapted.http.post("/generate", json=styled["parameters"], timeout=60).json()
    assert sha(again) == sha(styled)
    assert sha(generate(adapted)) == sha(plain)


def test_sets_drawn_at_once_are_the_bytes_of_each_alone(adapted: Node) -> None:
    sets = [[], [{"name": "style"}], [{"name": "lines", "weight": 2.0}], [{"name": "lines"}, {"name": "style"}]]
    alone = [sha(generate(adapted, loras=loras)) for loras in sets]
    assert len(set(alone)) == len(sets)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda loras: sha(generate(adapted, loras=loras)), [*sets, *sets]))
    assert together == [*alone, *alone]


def test_an_embedding_changes_the_image_where_its_token_stands(adapted: Node) -> None:
    with_token = generate(adapted, prompt="a <fluffy> fox", embeddings=["fluffy"])
    assert with_token["parameters"]["embeddings"] == ["fluffy"]
    assert sha(with_token) != sha(generate(adapted))
    by_token = generate(adapted, prompt="a <fluffy> fox")
    assert sha(by_token) == sha(with_token), "a token in angle brackets need not be named"
    lineage = adapted.http.get(f"/images/{by_token['images'][0]['id']}/metadata").json()["lineage"]
    assert lineage["embeddings"] == list(lineage["adapter_files"]) == ["fluffy"]


def test_capabilities_list_what_fits_and_why_the_rest_does_not(adapted: Node, folder: Path) -> None:
    read = adapted.http.get("/capabilities").json()
    loras = {each["name"]: each for each in read["loras"]}
    assert list(loras) == ["cut", "lines", "old", "other", "style"]
    assert loras["style"] == {
        "name": "style",
        "num_bytes": (folder / "style.safetensors").stat().st_size,
        "fits": True,
        "detail": None,
        "rank": 4,
    }
    assert {name for name, each in loras.items() if not each["fits"]} == {"cut", "old", "other"}
    assert loras["old"]["detail"].startswith("It is a pickle")
    assert read["embeddings"] == [
        {
            "name": "fluffy",
            "num_bytes": (folder / "fluffy.safetensors").stat().st_size,
            "fits": True,
            "detail": None,
            "token": "<fluffy>",
            "num_vectors": 2,
        }
    ]


@pytest.mark.parametrize(
    ("changes", "pointer", "code", "detail"),
    [
        ({"loras": [{"name": "none"}]}, "#/loras/0/name", "lora_not_found", "It has lines, style."),
        ({"loras": [{"name": "cut"}]}, "#/loras/0/name", "lora_not_found", "truncated"),
        ({"loras": [{"name": "old"}]}, "#/loras/0/name", "lora_not_found", "pickle"),
        ({"loras": [{"name": "style"}, {"name": "other"}]}, "#/loras/1/name", "lora_not_found", "architecture"),
        ({"loras": [{"name": "style"}, {"name": "style"}]}, "#/loras", "duplicate_adapters", "twice"),
        ({"loras": [{"name": "style", "weight": 11}]}, "#/loras/0/weight", None, "10"),
        ({"loras": [{"name": "style", "strength": 1}]}, "#/loras/0/strength", None, ""),
        ({"loras": "style"}, "#/loras", None, ""),
        ({"embeddings": ["none"]}, "#/embeddings/0", "embedding_not_found", "It has fluffy."),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(
    adapted: Node, changes: dict[str, Any], pointer: str, code: str | None, detail: str
) -> None:
    answer = adapted.http.post("/generate", json={**FOX, **changes})
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert code is None or error["code"] == code
    assert detail in error["detail"]


def test_a_dataset_takes_loras_for_its_images(adapted: Node) -> None:
    classes = [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")]
    body: dict[str, Any] = {"name": "styled", "classes": classes, "train_per_class": 1, "test_per_class": 0}
    body["generation"] = {"loras": [{"name": "style", "weight": 0.5}], "num_inference_steps": 2}
    made = adapted.http.post("/datasets", json=body)
    assert made.status_code == 202, made.text
    recorded = adapted.http.get(f"/datasets/{made.json()['id']}").json()["generation"]
    assert recorded["loras"] == [{"name": "style", "weight": 0.5}]
    body |= {"name": "none", "generation": {"loras": [{"name": "none"}]}}
    refused = adapted.http.post("/datasets", json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "#/generation/loras/0/name")


def test_a_node_without_the_folder_has_none(shared_node: Node) -> None:
    read = shared_node.http.get("/capabilities").json()
    assert (read["loras"], read["embeddings"]) == ([], [])
    answer = shared_node.http.post("/generate", json={**FOX, "loras": [{"name": "style"}]})
    assert (answer.status_code, answer.json()["errors"][0]["detail"]) == (
        422,
        "The node has no LoRA of this name. It has none.",
    )
