"""Loading refuses what does not fit, and never fills up with random numbers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.modelpacks.loading import load_backbone, load_classifier, load_clip, load_diffusion
from app.modelpacks.pack import ModelPack, PackError, read_pack
from testing.tiny import CLASSES, write_manifest
from tests.unit.modelpacks.conftest import CopyParts

CPU = torch.device("cpu")

LOAD: dict[str, Callable[[ModelPack], object]] = {
    "diffusion": lambda pack: load_diffusion(pack, CPU, torch.float32),
    "clip": lambda pack: load_clip(pack, CPU),
    "classifier": lambda pack: load_classifier(pack, CPU),
    "backbone": lambda pack: load_backbone(pack, CPU),
}


def load_changed(folder: Path, part: str) -> object:
    """Load after a change that the manifest agrees with."""
    write_manifest(folder)
    return LOAD[part](read_pack(folder))


@pytest.mark.parametrize("part", ["diffusion", "clip", "classifier"])
def test_a_file_that_the_manifest_does_not_list_so_is_not_loaded(copy_parts: CopyParts, part: str) -> None:
    own_pack = copy_parts(part)
    weights = next((own_pack / part).rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(PackError, match=weights.name):
        LOAD[part](read_pack(own_pack))


WEIGHTS = [
    ("diffusion", "diffusion/unet/diffusion_pytorch_model.safetensors"),
    ("diffusion", "diffusion/vae/diffusion_pytorch_model.safetensors"),
    ("diffusion", "diffusion/text_encoder/model.safetensors"),
    ("diffusion", "diffusion/safety_checker/model.safetensors"),
    ("clip", "clip/model.safetensors"),
    ("classifier", "classifier/model.safetensors"),
    ("backbone", "classifier/model.safetensors"),
]


@pytest.mark.parametrize(("part", "path"), WEIGHTS)
def test_weights_that_lack_a_tensor_are_refused(copy_parts: CopyParts, part: str, path: str) -> None:
    own_pack = copy_parts(path.split("/")[0])
    tensors = load_file(own_pack / path)
    tensors.pop(sorted(name for name in tensors if not name.startswith("fc."))[-1])
    save_file(tensors, own_pack / path, metadata={"format": "pt"})
    with pytest.raises(PackError, match=Path(path).name):
        load_changed(own_pack, part)


@pytest.mark.parametrize(("part", "path"), WEIGHTS)
def test_weights_of_another_shape_are_refused(copy_parts: CopyParts, part: str, path: str) -> None:
    own_pack = copy_parts(path.split("/")[0])
    tensors = load_file(own_pack / path)
    name = sorted(name for name, tensor in tensors.items() if tensor.ndim > 1 and not name.startswith("fc."))[0]
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    save_file(tensors, own_pack / path, metadata={"format": "pt"})
    with pytest.raises(PackError, match=Path(path).name):
        load_changed(own_pack, part)


@pytest.mark.parametrize(("part", "path"), WEIGHTS)
def test_weights_that_are_no_safetensors_are_refused(copy_parts: CopyParts, part: str, path: str) -> None:
    own_pack = copy_parts(path.split("/")[0])
    (own_pack / path).write_bytes((own_pack / path).read_bytes()[:1000])
    with pytest.raises(PackError, match=Path(path).name):
        load_changed(own_pack, part)


@pytest.mark.parametrize(("part", "path"), WEIGHTS)
def test_a_pickle_is_no_substitute(copy_parts: CopyParts, part: str, path: str) -> None:
    own_pack = copy_parts(path.split("/")[0])
    weights = own_pack / path
    torch.save(load_file(weights), weights.with_name(weights.name.replace(".safetensors", ".bin")))
    weights.unlink()
    with pytest.raises(PackError, match=r"\.safetensors"):
        load_changed(own_pack, part)


def test_the_half_precision_variant_is_taken_where_there_is_one(copy_parts: CopyParts) -> None:
    own_pack = copy_parts("diffusion")
    for weights in list((own_pack / "diffusion").rglob("*.safetensors")):
        variant = weights.with_name(weights.name.replace(".safetensors", ".fp16.safetensors"))
        save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, variant, {"format": "pt"})
        weights.unlink()
    write_manifest(own_pack)
    components = load_diffusion(read_pack(own_pack), CPU, torch.float32)
    for model in (components.unet, components.vae, components.text_encoder, components.safety_checker):
        assert model is not None
        assert model.dtype == torch.float32, "the dtype asked for, whatever the file has"
        assert not model.training


def test_an_announced_safety_checker_that_is_missing_is_an_error(copy_parts: CopyParts) -> None:
    own_pack = copy_parts("diffusion")
    for file in (own_pack / "diffusion" / "safety_checker").iterdir():
        file.unlink()
    with pytest.raises(PackError, match="safety_checker"):
        load_changed(own_pack, "diffusion")


@pytest.mark.parametrize(
    "path", ["diffusion/model_index.json", "diffusion/scheduler/scheduler_config.json", "classifier/config.json"]
)
@pytest.mark.parametrize("content", [None, "", "[]"])
def test_a_broken_config_is_named(copy_parts: CopyParts, path: str, content: str | None) -> None:
    own_pack = copy_parts(path.split("/")[0])
    if content is None:
        (own_pack / path).unlink()
    else:
        (own_pack / path).write_text(content)
    with pytest.raises(PackError, match=Path(path).name):
        load_changed(own_pack, path.split("/")[0])


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "vgg16"},
        {"classes": {"weights": "Nothing_Weights.V1"}},
        {"classes": [1, 2, 3]},
        {"preprocessing": {"resize": 72}},
        {"preprocessing": {"resize": 72, "crop": 64, "mean": [0], "std": [1], "interpolation": "magic"}},
    ],
)
def test_a_config_that_describes_no_classifier_is_refused(copy_parts: CopyParts, change: dict[str, object]) -> None:
    own_pack = copy_parts("classifier")
    path = own_pack / "classifier" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PackError, match=r"config\.json"):
        load_changed(own_pack, "classifier")


def test_a_classifier_with_another_number_of_classes_is_refused(copy_parts: CopyParts) -> None:
    own_pack = copy_parts("classifier")
    path = own_pack / "classifier" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "classes": [*CLASSES, "wolf"]}))
    with pytest.raises(PackError, match=r"model\.safetensors"):
        load_changed(own_pack, "classifier")


def test_loading_takes_no_random_numbers(built_pack: Path) -> None:
    """A loader that draws would make everything after it depend on what was loaded."""
    pack = read_pack(built_pack)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for load in LOAD.values():
        load(pack)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_unet_with_channels_of_another_task_is_refused(copy_parts: CopyParts) -> None:
    own_pack = copy_parts("diffusion")
    folder = own_pack / "diffusion" / "unet"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "in_channels": 8}))
    path = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    first = tensors["conv_in.weight"]
    tensors["conv_in.weight"] = torch.cat([first, first], 1)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(PackError, match="is of a model for another task"):
        load_changed(own_pack, "diffusion")
