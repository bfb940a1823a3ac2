"""LoRA and embedding files that do not fit are refused with a sentence, and listed with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.embedding_file import read_embedding
from app.modelpacks.fusing import layer_shapes
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.lora_file import AdapterFault, read_lora
from app.modelpacks.pack import read_pack
from testing.lora_files import lora_tensors, write_lora

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def parts(built_pack: Path) -> DiffusionComponents:
    return load_diffusion(read_pack(built_pack), CPU, torch.float32)


@pytest.fixture(scope="module")
def fitting(parts: DiffusionComponents) -> Tensors:
    return lora_tensors(parts.unet, parts.text_encoder, alpha=2.0)


def refusal(parts: DiffusionComponents, path: Path) -> str:
    shapes = {"unet": layer_shapes(parts.unet), "text_encoder": layer_shapes(parts.text_encoder)}
    with pytest.raises(AdapterFault) as caught:
        read_lora(path, shapes)
    return str(caught.value)


def changed(change: Callable[[Tensors], None], tensors: Tensors) -> Tensors:
    copied = dict(tensors)
    change(copied)
    return copied


def first(tensors: Tensors, end: str) -> str:
    return next(key for key in tensors if key.endswith(end))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop(first(t, "lora_up.weight")), "It is incomplete"),
        (lambda t: t.update({first(t, "lora_up.weight"): torch.zeros(3, 4)}), "It is for a model of another size"),
        (lambda t: t.update({first(t, "lora_down.weight"): torch.zeros(4)}), "It is for a model of another size"),
        (lambda t: t.update({first(t, "lora_down.weight"): torch.zeros(0, 16)}), "It is for a model of another size"),
        (
            lambda t: t.update({"lora_unet_mid.hada_w1_a": torch.zeros(1)}),
            "It has weights that are not those of a LoRA",
        ),
        (lambda t: t.update({"lora_unet_mid.dora_scale": torch.zeros(1)}), "It has weights that are not those of a"),
        (lambda t: t.update({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}), "It is for another architecture"),
        (lambda t: t.update({"lora_te2_x.lora_down.weight": torch.zeros(1, 1)}), "It is for Stable Diffusion XL"),
        (lambda t: t.clear(), "It is for another architecture"),
        (lambda t: t.update({first(t, ".alpha"): torch.zeros(2)}), "It is truncated or not"),
    ],
)
def test_what_does_not_fit_is_said(
    parts: DiffusionComponents, fitting: Tensors, tmp_path: Path, change: Callable, sentence: str
) -> None:
    path = write_lora(tmp_path / "own.safetensors", changed(change, fitting))
    told = refusal(parts, path)
    assert told.startswith(sentence)
    assert told.endswith(".")
    assert str(tmp_path) not in told


def test_a_folder_lists_everything_with_its_reason(
    parts: DiffusionComponents, fitting: Tensors, tmp_path: Path
) -> None:
    width = parts.text_encoder.config.hidden_size
    write_lora(tmp_path / "good.safetensors", fitting)
    cut = write_lora(tmp_path / "cut.safetensors", fitting)
    cut.write_bytes(cut.read_bytes()[:-10])
    torch.save(fitting, tmp_path / "old.pt")
    (tmp_path / "readme.txt").write_text("nothing")
    (tmp_path / "embeddings").mkdir()
    save_file({"<cat>": torch.ones(2, width)}, tmp_path / "embeddings" / "cat.safetensors")
    save_file({"emb_params": torch.ones(1, width)}, tmp_path / "here.safetensors")
    save_file({"<wide>": torch.ones(1, width + 1)}, tmp_path / "embeddings" / "wide.safetensors")
    save_file({}, tmp_path / "embeddings" / "empty.safetensors")
    save_file({"clip_l": torch.ones(1, width), "clip_g": torch.ones(1, 9)}, tmp_path / "embeddings" / "xl.safetensors")
    folder = AdapterFolder(tmp_path, unet=parts.unet, text_encoder=parts.text_encoder)
    faults = {name: entry.fault for name, entry in folder.loras.items()}
    assert faults.pop("good") is None
    assert faults == {
        "cut": "It is truncated or not a safetensors file.",
        "old": "It is a pickle, which can run any code when it is loaded. Convert it to .safetensors.",
    }
    tokens = {name: entry.file.tokens for name, entry in folder.embeddings.items() if entry.file}
    assert tokens == {"cat": ["<cat>", "<cat>_1"], "here": ["here"]}
    assert folder.embeddings["wide"].fault == (
        f"Its vectors have {width + 1} numbers, and the loaded model's have {width}."
    )
    assert folder.embeddings["empty"].fault == (
        "It is not a textual-inversion embedding, which has one tensor of vectors."
    )
    assert folder.embeddings["xl"].fault == "It is for Stable Diffusion XL."


def test_a_folder_that_is_missing_has_nothing(parts: DiffusionComponents, tmp_path: Path) -> None:
    folder = AdapterFolder(tmp_path / "none", unet=parts.unet, text_encoder=parts.text_encoder)
    assert (folder.loras, folder.embeddings) == ({}, {})


def test_the_settings_of_peft_give_the_alphas(parts: DiffusionComponents, tmp_path: Path) -> None:
    tensors = lora_tensors(parts.unet, form="peft", rank=8)
    path = tmp_path / "peft.safetensors"
    settings = '{"unet.lora_alpha": 4, "unet.alpha_pattern": {"attn2.to_k": 16}, "unet.r": 8}'
    save_file(tensors, path, metadata={"format": "pt", "lora_adapter_metadata": settings})
    shapes = {"unet": layer_shapes(parts.unet), "text_encoder": layer_shapes(parts.text_encoder)}
    scales = {layer.name.split("blocks.0.")[-1]: layer.scale for layer in read_lora(path, shapes).layers}
    assert scales["attn2.to_k"] == 2.0
    assert scales["attn1.to_k"] == scales["attn2.to_q"] == 0.5


@pytest.mark.parametrize(
    "settings",
    ['{"unet.lora_alpha": "high"}', '{"unet.lora_alpha": null, "unet.alpha_pattern": {"attn2.to_k": [1]}}'],
)
def test_settings_that_are_no_numbers_are_refused(parts: DiffusionComponents, tmp_path: Path, settings: str) -> None:
    path = tmp_path / "peft.safetensors"
    tensors = lora_tensors(parts.unet, form="peft", rank=8)
    save_file(tensors, path, metadata={"format": "pt", "lora_adapter_metadata": settings})
    assert refusal(parts, path) == "Its settings have an alpha that is not a number."


def test_weights_that_are_not_finite_are_refused(parts: DiffusionComponents, fitting: Tensors, tmp_path: Path) -> None:
    key = next(key for key in fitting if key.startswith("lora_unet") and key.endswith("lora_up.weight"))
    path = write_lora(tmp_path / "bad.safetensors", {**fitting, key: torch.full_like(fitting[key], torch.nan)})
    shapes = {"unet": layer_shapes(parts.unet), "text_encoder": layer_shapes(parts.text_encoder)}
    lora = read_lora(path, shapes)
    with pytest.raises(AdapterFault, match="It has weights that are not finite numbers"):
        list(lora.deltas("unet", shapes))
    save_file({"<bad>": torch.full((1, 8), torch.inf)}, tmp_path / "bad.safetensors")
    with pytest.raises(AdapterFault, match="not finite"):
        read_embedding(tmp_path / "bad.safetensors", 8).vectors()
