"""`photo` from its package, folders of timm's models, and how both are refused or fetched."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from app.cli.main import app
from app.modelpacks.fetch_backbone import fetch_backbone
from app.modelpacks.pack import PackError
from app.modelpacks.photo import arrange, ensure_photo
from app.modelpacks.timm_models import read_timm_model
from tests.unit.modelpacks.hub import Server, serve

CONFIG: dict[str, Any] = {
    "architecture": "test_vit",
    "num_classes": 3,
    "num_features": 64,
    "pretrained_cfg": {"tag": "mine", "input_size": [3, 64, 64], "crop_pct": 0.8, "mean": [0.5] * 3, "std": [0.5] * 3},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "offered"
    folder.mkdir()
    save_file({"norm.weight": torch.ones(64), "head.running_mean": torch.ones(9)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


def test_photo_is_converted_once_and_alike_by_processes_that_start_together(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=ensure_photo, args=(tmp_path / "photo",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "photo").iterdir()) == ["config.json", "model.safetensors"]
    weights = tmp_path / "photo" / "model.safetensors"
    assert len(load_file(weights)) == 296
    before = (weights.stat().st_mtime_ns, hashlib.sha256(weights.read_bytes()).hexdigest())
    ensure_photo(tmp_path / "photo")
    assert (weights.stat().st_mtime_ns, hashlib.sha256(weights.read_bytes()).hexdigest()) == before
    found = read_timm_model("photo", tmp_path / "photo")
    assert found.classes is not None
    assert (found.classes[310], found.num_features, found.trained_on_photographs) == ("ant", 1280, True)


def test_tensors_of_other_shapes_are_not_given_names() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        arrange({"a": torch.zeros(3)})


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "photo").write_text("in the way")
    with pytest.raises(PackError, match="cannot be written"):
        ensure_photo(tmp_path / "photo")


def test_a_folder_is_described_without_loading_it(folder: Path) -> None:
    found = read_timm_model("mine", folder)
    assert (found.preprocessing.resize, found.preprocessing.crop, found.preprocessing.interpolation) == (
        80,
        64,
        "bicubic",
    )
    assert (found.num_parameters, found.num_features, found.num_classes) == (64, 64, 3)
    assert (found.classes, found.trained_on_photographs) == (None, False)
    assert found.num_bytes == (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    "change",
    [
        {"pretrained_cfg": {}},
        {"pretrained_cfg": {**CONFIG["pretrained_cfg"], "input_size": [3, 64, 32]}},
        {"pretrained_cfg": {**CONFIG["pretrained_cfg"], "interpolation": "magic"}},
        {"label_names": ["one", "two"]},
        {"model_args": {"checkpoint_path": "/etc/passwd"}},
    ],
)
def test_a_config_that_cannot_be_used_is_refused(folder: Path, change: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(PackError, match=r"^mine: config\.json"):
        read_timm_model("mine", folder)


@pytest.mark.parametrize("content", [b"", b"no weights at all, but longer than a header"])
def test_broken_weights_are_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(PackError, match="cannot be read"):
        read_timm_model("mine", folder)


def test_a_backbone_is_fetched_from_the_hub_and_resumed(folder: Path, server: Server, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.add_repository("timm/mine.in1k", {**files, "pytorch_model.bin": b"not wanted"}, revision="main")
    weights = "/timm/mine.in1k/resolve/main/model.safetensors"
    server.cut[weights] = 100
    with pytest.raises(PackError, match="repeat the command"):
        fetch_backbone("mine.in1k", tmp_path, _ignore, hub_url=server.url)
    assert not (tmp_path / "backbones" / "mine.in1k").exists()
    assert fetch_backbone("mine.in1k", tmp_path, _ignore, hub_url=server.url).trained_on_photographs
    fetched = {path.name: path.read_bytes() for path in (tmp_path / "backbones" / "mine.in1k").iterdir()}
    assert fetched == files
    assert (weights, "bytes=100-") in server.seen
    assert len(server.downloads()) == len({*server.downloads()})


def test_one_that_foxhound_cannot_use_is_not_kept(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(PackError, match="does not describe"):
        fetch_backbone("mine", tmp_path, _ignore, local=folder)
    assert list((tmp_path / "backbones").iterdir()) == []


@pytest.mark.parametrize("name", ["photo", "clip", "resnet18", "../up", "a/b", "", ".hidden", "x" * 65])
def test_names_that_no_backbone_can_have(folder: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(PackError, match="cannot have this name"):
        fetch_backbone(name, tmp_path, _ignore, local=folder)


def test_the_command_copies_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOXHOUND_MODELS_DIR", str(tmp_path / "models"))
    done = CliRunner().invoke(app, ["models", "fetch", "backbone", "mine", "--from", str(folder)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "models" / "backbones" / "mine" / "config.json").is_file()
    for wrong in (["backbone"], ["sd15", "mine"], ["sd15", "--from", str(folder)]):
        assert CliRunner().invoke(app, ["models", "fetch", *wrong]).exit_code == 2


def _ignore(_name: str, _done: int, _total: int | None) -> None:
    """Show no progress."""
