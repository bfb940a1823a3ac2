"""Fetching from a server on this machine that answers as the hub and as torchvision's do."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.modelpacks.convert import convert_state_dict
from app.modelpacks.fetch import fetch_pack
from app.modelpacks.loading import load_backbone, load_classifier, load_clip, load_diffusion
from app.modelpacks.pack import ModelPack, PackError
from app.modelpacks.sd15 import SD15_SOURCES, HubSource, PackSources, TorchvisionSource
from testing.tiny import MANIFEST
from tests.unit.modelpacks.hub import REVISION, Server, serve

CPU = torch.device("cpu")
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


def to_pickle(weights: Path, folder: Path) -> bytes:
    torch.save(load_file(weights), folder / "pickle")
    return (folder / "pickle").read_bytes()


@pytest.fixture(scope="session")
def clip_pickle(built_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return to_pickle(built_pack / "clip" / "model.safetensors", tmp_path_factory.mktemp("pickles"))


@pytest.fixture(scope="session")
def resnet_pickle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A state dict as far as fetching is concerned, and no larger than that takes."""
    path: Path = tmp_path_factory.mktemp("pickles") / "resnet.pth"
    torch.save({"fc.weight": torch.nn.Parameter(torch.eye(3)), "fc.bias": torch.zeros(3)}, path)
    return path.read_bytes()


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def offer(server: Server, built_pack: Path, clip_pickle: bytes, resnet_pickle: bytes) -> PackSources:
    """Serve the tiny pack in the way that `sd15` is offered."""
    server.add_repository("org/diffusion", {**read_folder(built_pack / "diffusion"), "README.md": b"not wanted"})
    clip = read_folder(built_pack / "clip")
    clip.pop("model.safetensors")
    server.add_repository("org/clip", {**clip, "pytorch_model.bin": clip_pickle, "flax_model.msgpack": b"not wanted"})
    file_name = f"resnet18-{hashlib.sha256(resnet_pickle).hexdigest()[:8]}.pth"
    server.files[f"/{file_name}"] = resnet_pickle
    config = json.loads((built_pack / "classifier" / "config.json").read_text())
    return PackSources(
        facts=MANIFEST,
        hub=(
            HubSource("diffusion", "org/diffusion", REVISION, ("model_index.json", "*/*")),
            HubSource(
                "clip",
                "org/clip",
                REVISION,
                ("*.json", "merges.txt", "model.safetensors"),
                {"model.safetensors": "pytorch_model.bin"},
            ),
        ),
        torchvision=(TorchvisionSource("classifier", file_name, config),),
    )


@pytest.fixture
def sources(server: Server, built_pack: Path, clip_pickle: bytes, resnet_pickle: bytes) -> PackSources:
    return offer(server, built_pack, clip_pickle, resnet_pickle)


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    return tmp_path / "models"


def fetch(server: Server, sources: PackSources, models_dir: Path, on_progress: object = None) -> ModelPack:
    def ignore(file: str, done: int, total: int | None) -> None:
        pass

    return fetch_pack(
        "tiny",
        models_dir,
        on_progress if callable(on_progress) else ignore,
        sources=sources,
        hub_url=server.url,
        torchvision_url=server.url,
    )


def test_a_fetched_pack_loads_and_holds_no_pickle(
    server: Server, models_dir: Path, built_pack: Path, clip_pickle: bytes, tmp_path: Path
) -> None:
    resnet = to_pickle(built_pack / "classifier" / "model.safetensors", tmp_path)
    pack = fetch(server, offer(server, built_pack, clip_pickle, resnet), models_dir)
    load_diffusion(pack, CPU, torch.float32)
    load_clip(pack, CPU)
    load_classifier(pack, CPU)
    load_backbone(pack, CPU)

    fetched = read_folder(models_dir / "tiny")
    assert {path.rpartition(".")[2] for path in fetched} == {"json", "txt", "safetensors"}
    assert {file.path for file in pack.files} == set(fetched) - {"manifest.json"}
    for part in ("clip", "classifier"):
        converted = load_file(pack.part(part) / "model.safetensors")
        original = load_file(built_pack / part / "model.safetensors")
        assert converted.keys() == original.keys()
        assert all(torch.equal(converted[name], original[name]) for name in original)


def test_only_the_files_of_the_pack_are_downloaded(server: Server, sources: PackSources, models_dir: Path) -> None:
    fetch(server, sources, models_dir)
    names = [name for name, _ in server.downloads()]
    assert "README.md" not in names
    assert "flax_model.msgpack" not in names
    assert len([path for path, _ in server.seen]) == len({path for path, _ in server.seen}), "nothing twice"


# What the pinned commit of stable-diffusion-v1-5 offers, but for pictures and the like.
SD15_COMMIT = [
    ".gitattributes",
    "README.md",
    "feature_extractor/preprocessor_config.json",
    "model_index.json",
    "safety_checker/config.json",
    "safety_checker/model.fp16.safetensors",
    "safety_checker/model.safetensors",
    "safety_checker/pytorch_model.bin",
    "safety_checker/pytorch_model.fp16.bin",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder/pytorch_model.fp16.bin",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "v1-5-pruned-emaonly.ckpt",
    "v1-5-pruned-emaonly.safetensors",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "v1-inference.yaml",
    "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
    "vae/diffusion_pytorch_model.fp16.bin",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
]


def test_of_stable_diffusion_only_the_half_precision_safetensors_are_taken(server: Server, models_dir: Path) -> None:
    [diffusion, _] = SD15_SOURCES.hub
    server.add_repository(diffusion.repo_id, {path: path.encode() for path in SD15_COMMIT}, revision=diffusion.revision)
    pack = fetch(server, PackSources(facts=MANIFEST, hub=(diffusion,), torchvision=()), models_dir)
    taken = {file.path.removeprefix("diffusion/") for file in pack.files}
    assert {path for path in taken if not path.endswith((".json", ".txt"))} == {
        "safety_checker/model.fp16.safetensors",
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    }
    assert taken >= {path for path in SD15_COMMIT if path.endswith((".json", ".txt"))}


def test_a_commit_that_has_safetensors_is_not_converted(
    server: Server, sources: PackSources, models_dir: Path, built_pack: Path, clip_pickle: bytes
) -> None:
    server.add_repository("org/clip", {**read_folder(built_pack / "clip"), "pytorch_model.bin": clip_pickle})
    pack = fetch(server, sources, models_dir)
    assert (pack.part("clip") / "model.safetensors").read_bytes() == (
        built_pack / "clip" / "model.safetensors"
    ).read_bytes()
    assert "pytorch_model.bin" not in [name for name, _ in server.downloads()]


def test_repeating_a_complete_fetch_asks_for_nothing(server: Server, sources: PackSources, models_dir: Path) -> None:
    first = fetch(server, sources, models_dir)
    server.seen.clear()
    assert fetch(server, sources, models_dir) == first
    assert server.seen == []


@pytest.mark.parametrize("has_ranges", [True, False])
def test_an_interrupted_download_goes_on_where_it_stopped(
    server: Server, sources: PackSources, models_dir: Path, built_pack: Path, has_ranges: bool
) -> None:
    content = (built_pack / "diffusion" / UNET).read_bytes()
    half = len(content) // 2
    server.cut[f"/org/diffusion/resolve/{REVISION}/{UNET}"] = half
    with pytest.raises(PackError, match=r"diffusion_pytorch_model.*stopped; repeat"):
        fetch(server, sources, models_dir)
    target = models_dir / "tiny" / "diffusion" / UNET
    assert not target.exists(), "what is not complete does not bear the name"
    assert not (models_dir / "tiny" / "manifest.json").exists()
    complete = {path for path, _ in server.seen[:-1] if not path.startswith("/api/")}

    server.seen.clear()
    server.has_ranges = has_ranges
    fetch(server, sources, models_dir)
    assert target.read_bytes() == content
    assert server.seen[1] == (f"/org/diffusion/resolve/{REVISION}/{UNET}", f"bytes={half}-")
    assert not complete & {path for path, _ in server.seen}, "what was complete is not asked for again"


def test_an_interrupt_by_the_user_can_be_repeated(server: Server, sources: PackSources, models_dir: Path) -> None:
    arrived = []

    def interrupt(file: str, done: int, total: int | None) -> None:
        if file == UNET:
            arrived.append(done)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, sources, models_dir, interrupt)
    server.seen.clear()
    load_diffusion(fetch(server, sources, models_dir), CPU, torch.float32)
    assert server.seen[1] == (f"/org/diffusion/resolve/{REVISION}/{UNET}", f"bytes={arrived[0]}-")


def test_a_download_that_was_complete_but_not_renamed_is_not_repeated(
    server: Server, sources: PackSources, models_dir: Path, built_pack: Path
) -> None:
    part = models_dir / "tiny" / "diffusion" / f"{UNET}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes((built_pack / "diffusion" / UNET).read_bytes())
    fetch(server, sources, models_dir)
    assert ("diffusion_pytorch_model.safetensors", None) in server.downloads()  # the VAE's
    assert f"/org/diffusion/resolve/{REVISION}/{UNET}" not in [path for path, _ in server.seen]


@pytest.mark.parametrize("url_path", [f"/org/diffusion/resolve/{REVISION}/{UNET}", "resnet"])
def test_a_file_with_another_hash_is_refused(
    server: Server, sources: PackSources, models_dir: Path, url_path: str
) -> None:
    if url_path == "resnet":
        url_path = f"/{sources.torchvision[0].file_name}"
    right = server.files[url_path]
    server.files[url_path] = right[:-1] + bytes([right[-1] ^ 1])
    with pytest.raises(PackError, match=r"not the file that was pinned"):
        fetch(server, sources, models_dir)
    name = url_path.rpartition("/")[2]
    assert not [path for path in (models_dir / "tiny").rglob(f"{name}*") if "vae" not in path.parts]
    assert not (models_dir / "tiny" / "classifier" / "model.safetensors").exists(), "it was never opened"

    server.files[url_path] = right
    load_diffusion(fetch(server, sources, models_dir), CPU, torch.float32)


def test_a_file_damaged_on_the_disk_is_fetched_again_alone(
    server: Server, sources: PackSources, models_dir: Path, built_pack: Path
) -> None:
    pack = fetch(server, sources, models_dir)
    damaged = pack.part("diffusion") / UNET
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    server.seen.clear()
    fetch(server, sources, models_dir)
    assert damaged.read_bytes() == (built_pack / "diffusion" / UNET).read_bytes()
    assert [name for name, _ in server.downloads()] == [damaged.name]


def test_a_conversion_gives_the_same_bytes_each_time(tmp_path: Path, resnet_pickle: bytes) -> None:
    """Several metadata keys came in a random order, so that no two nodes had the same backbone hash."""
    (tmp_path / "pickle").write_bytes(resnet_pickle)
    for name in "abcdefgh":
        convert_state_dict(tmp_path / "pickle", tmp_path / name, "resnet.pth")
    assert len({(tmp_path / name).read_bytes() for name in "abcdefgh"}) == 1
    assert load_file(tmp_path / "a")["fc.weight"].shape == (3, 3)


def test_a_converted_file_damaged_on_the_disk_is_made_again(
    server: Server, sources: PackSources, models_dir: Path
) -> None:
    pack = fetch(server, sources, models_dir)
    converted = pack.part("classifier") / "model.safetensors"
    content = converted.read_bytes()
    converted.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    fetch(server, sources, models_dir)
    assert converted.read_bytes() == content


def test_progress_is_reported_in_bytes(server: Server, sources: PackSources, models_dir: Path) -> None:
    calls: list[tuple[str, int, int | None]] = []
    fetch(server, sources, models_dir, lambda *call: calls.append(call))
    last = {file: (done, total) for file, done, total in calls}
    assert last.keys() >= {UNET, "pytorch_model.bin", sources.torchvision[0].file_name}
    assert all(done == total for done, total in last.values())


def test_a_file_that_the_commit_does_not_have_is_named(server: Server, sources: PackSources, models_dir: Path) -> None:
    server.add_repository("org/clip", {"config.json": b"{}", "merges.txt": b""})
    with pytest.raises(PackError, match=r"org/clip has no model\.safetensors"):
        fetch(server, sources, models_dir)


def test_an_unreachable_server_is_reported(server: Server, sources: PackSources, models_dir: Path) -> None:
    with pytest.raises(PackError, match="hub did not list org/diffusion"):
        fetch_pack("tiny", models_dir, print, sources=sources, hub_url="http://127.0.0.1:9", torchvision_url="")
    server.files.pop(f"/{sources.torchvision[0].file_name}")
    with pytest.raises(PackError, match="answered 404"):
        fetch(server, sources, models_dir)


def test_there_is_nothing_to_fetch_for_the_demo_pack(models_dir: Path) -> None:
    with pytest.raises(PackError, match="nothing to fetch"):
        fetch_pack("demo", models_dir, print)


class Exploit:
    """A pickle that would run a command if it were opened as pickles are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("content", ["code", "no tensors", "garbage"])
def test_a_pickle_that_is_not_weights_is_refused_unopened(tmp_path: Path, content: str) -> None:
    pickle, target, trace = tmp_path / "model.pth", tmp_path / "model.safetensors", tmp_path / "trace"
    if content == "garbage":
        pickle.write_bytes(b"garbage")
    else:
        torch.save({"weight": Exploit(trace) if content == "code" else "text"}, pickle)
    with pytest.raises(PackError, match="not a file of weights"):
        convert_state_dict(pickle, target, "model.pth")
    assert not trace.exists()
    assert not target.exists()
