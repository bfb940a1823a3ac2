"""LoRAs against `load_lora_weights` of diffusers: key forms, ranks, layers, alphas, two at once; and against ourselves.

diffusers adds the product of the factors to a layer's output, we add it to the layer's weight: the same sum in another
order. Tolerance: that of `test_diffusion`. Against ourselves: none. An image is the same bytes alone and in any
company, and without LoRAs the same as on a node without the folder.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from app.engine.diffusion.options import DenoisingOptions
from app.engine.diffusion.runner import DiffusionRunner
from app.image_spec import ImageSpec, LoraUse
from app.modelpacks.adapters import AdapterFolder, BaseModels
from app.modelpacks.loading import DiffusionComponents, load_diffusion, reload_network
from app.modelpacks.pack import ModelPack
from app.services.inference.diffusion.model_adapters import ModelAdapters
from testing.lora_files import ATTENTION, CONVOLUTIONS, LINEAR, lora_tensors, write_lora
from tests.parity.conftest import CPU
from tests.parity.test_diffusion import (
    PAYLOAD,
    assert_same_latents,
    final_latents,
    latents_of,
    make_runner,
    start,
    upstream,
)

# Name to the settings of `lora_tensors`.
FILES: dict[str, dict[str, Any]] = {
    "kohya-4": {"rank": 4, "form": "kohya", "alpha": 2.0},
    "kohya-conv-16": {"rank": 16, "form": "kohya", "ends": (*LINEAR, *CONVOLUTIONS), "alpha": 8.0, "seed": 1},
    "kohya-64": {"rank": 64, "form": "kohya", "ends": LINEAR, "alpha": 32.0, "seed": 2},
    "diffusers-8": {"rank": 8, "form": "diffusers", "ends": ATTENTION, "seed": 3},
    "peft-32": {"rank": 32, "form": "peft", "ends": LINEAR, "seed": 4},
    "peft-conv-4": {"rank": 4, "form": "peft", "ends": CONVOLUTIONS, "seed": 5},
    "unet-alone": {"rank": 4, "form": "kohya", "alpha": 1.0, "seed": 6, "text_encoder": None},
}


@pytest.fixture(scope="module")
def folder(tiny_pack: ModelPack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = load_diffusion(tiny_pack, CPU, torch.float32)
    path = tmp_path_factory.mktemp("loras")
    for name, settings in FILES.items():
        write_lora(
            path / f"{name}.safetensors",
            lora_tensors(parts.unet, **{"text_encoder": parts.text_encoder, **settings}),
        )
    return path


def adapted(
    pack: ModelPack, folder: Path, dtype: torch.dtype = torch.float32, **changes: Any
) -> tuple[DiffusionRunner, ModelAdapters]:
    """A runner with the adapters of a folder, none of them loaded."""
    parts: DiffusionComponents = load_diffusion(pack, CPU, dtype)
    known = AdapterFolder(folder, unet=parts.unet, text_encoder=parts.text_encoder)
    runner = make_runner(parts, **changes)
    base = BaseModels(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        reload_unet=lambda: reload_network(pack, "unet", CPU, dtype),
        reload_text_encoder=lambda: reload_network(pack, "text_encoder", CPU, dtype),
    )
    return runner, ModelAdapters(known, base, runner)


@pytest.fixture(scope="module")
def node(tiny_pack: ModelPack, folder: Path) -> tuple[DiffusionRunner, ModelAdapters]:
    return adapted(tiny_pack, folder)


def using(*uses: tuple[str, float], **changes: Any) -> ImageSpec:
    return replace(PAYLOAD, loras=tuple(LoraUse(*use) for use in uses), **changes)


def drawn(node: tuple[DiffusionRunner, ModelAdapters], spec: ImageSpec) -> np.ndarray:
    runner, adapters = node
    adapters.load(spec.adapters)
    return final_latents(runner, spec)


def pipeline_with(pack: ModelPack, folder: Path, uses: Sequence[tuple[str, float]]) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(pack.part("diffusion"), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    names = [f"adapter{index}" for index in range(len(uses))]
    for name, (file, _) in zip(names, uses, strict=True):
        pipeline.load_lora_weights(folder, weight_name=f"{file}.safetensors", adapter_name=name, local_files_only=True)
    pipeline.set_adapters(names, [weight for _, weight in uses])
    return pipeline


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
@pytest.mark.parametrize(
    "uses",
    [
        *([(name, 1.0)] for name in FILES),
        [("kohya-4", 0.35)],
        [("kohya-4", -1.0)],
        [("kohya-4", 0.8), ("peft-conv-4", 0.6)],
        [("kohya-conv-16", 0.5), ("kohya-64", 1.5)],
    ],
    ids=str,
)
def test_latents_equal_those_of_diffusers(
    tiny_pack: ModelPack, folder: Path, node: tuple[DiffusionRunner, ModelAdapters], uses: list[tuple[str, float]]
) -> None:
    spec = using(*uses, num_inference_steps=4)
    [expected] = upstream(pipeline_with(tiny_pack, folder, uses), spec, output_type="latent")
    ours = drawn(node, spec)
    assert_same_latents(ours, expected)
    plain = final_latents(node[0], replace(spec, loras=()))
    assert np.abs(ours - plain).max() > 100 * 1e-4, "it has an effect, or the comparison says nothing"


@pytest.mark.parametrize("scheduler", ["lcm", "tcd"])
def test_four_steps_without_guidance_equal_those_of_diffusers(
    tiny_pack: ModelPack, folder: Path, node: tuple[DiffusionRunner, ModelAdapters], scheduler: str
) -> None:
    uses = [("kohya-4", 1.0)]
    spec = using(*uses, num_inference_steps=4, guidance_scale=1.0, scheduler=scheduler)
    [expected] = upstream(pipeline_with(tiny_pack, folder, uses), spec, output_type="latent")
    assert_same_latents(drawn(node, spec), expected)


def test_weight_zero_and_no_lora_are_the_bytes_of_a_node_without(
    tiny_pack: ModelPack, node: tuple[DiffusionRunner, ModelAdapters]
) -> None:
    plain = final_latents(make_runner(load_diffusion(tiny_pack, CPU, torch.float32)), PAYLOAD)
    assert drawn(node, using(("kohya-conv-16", 0.0))).tobytes() == plain.tobytes()
    assert final_latents(node[0], PAYLOAD).tobytes() == plain.tobytes()


def test_bytes_depend_neither_on_company_nor_on_what_was_loaded_before(
    tiny_pack: ModelPack, folder: Path, node: tuple[DiffusionRunner, ModelAdapters]
) -> None:
    specs = [using(), using(("kohya-4", 1.0)), using(("kohya-conv-16", 0.7), ("kohya-4", 0.2))]
    alone = []
    for spec in specs:
        fresh = adapted(tiny_pack, folder)
        alone.append(drawn(fresh, spec).tobytes())
    runner, adapters = node
    for spec in specs[1:]:
        adapters.load(spec.adapters)
    company = [[start(runner, replace(spec, seed=seed)) for seed in (1, spec.seed, 2)] for spec in specs]
    while not runner.is_finished(company[0][0]):
        for together in company:
            runner.step(together)
    assert [latents_of(together[1]).tobytes() for together in company] == alone


def test_keeping_what_prompts_and_timesteps_give_changes_no_byte(
    tiny_pack: ModelPack, folder: Path, node: tuple[DiffusionRunner, ModelAdapters]
) -> None:
    """A set has keys, values and timesteps of its own, also where it shares blocks with the model."""
    before = adapted(tiny_pack, folder, options=DenoisingOptions(keeps=False))
    for uses in ([("kohya-conv-16", 0.7)], [("unet-alone", 1.0)], [("kohya-64", 0.5), ("diffusers-8", 0.5)]):
        for _, adapters in (before, node):
            adapters.load(using(*uses).adapters)
        specs = [using(*uses), using(), using(*uses, seed=1, prompt="a dog")]
        expected = [final_latents(before[0], spec).tobytes() for spec in specs]
        together = [start(node[0], spec) for spec in specs]
        while not node[0].is_finished(together[0]):
            node[0].step([together[0], together[2]])
            node[0].step([together[1]])
        assert [latents_of(request).tobytes() for request in together] == expected


def test_the_order_of_two_loras_changes_nothing(node: tuple[DiffusionRunner, ModelAdapters]) -> None:
    uses = [("kohya-conv-16", 0.7), ("kohya-4", 0.2)]
    assert using(*uses).adapters == using(*reversed(uses)).adapters
    assert drawn(node, using(*uses)).tobytes() == drawn(node, using(*reversed(uses))).tobytes()


def test_a_variant_shares_what_its_loras_leave_alone(node: tuple[DiffusionRunner, ModelAdapters]) -> None:
    runner, adapters = node
    spec = using(("unet-alone", 1.0))
    models = adapters.folder.build(spec.adapters, adapters._base)
    own = {parameter.data_ptr() for parameter in runner._unet.parameters()}
    fused = dict(models.unet.named_parameters())
    assert models.text_encoder is adapters._base.text_encoder
    assert all(parameter.data_ptr() in own for name, parameter in fused.items() if "resnets" in name)
    assert any(parameter.data_ptr() not in own for parameter in fused.values())


def test_in_bfloat16_a_sum_is_rounded_once(tiny_pack: ModelPack, folder: Path) -> None:
    half, whole = adapted(tiny_pack, folder, torch.bfloat16), adapted(tiny_pack, folder)
    spec = using(("kohya-4", 1.0), ("peft-32", 0.5))
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    weights = [
        each.folder.build(spec.adapters, each._base).unet.get_submodule(name).weight for _, each in (half, whole)
    ]
    base = load_diffusion(tiny_pack, CPU, torch.bfloat16).unet.get_submodule(name).weight
    exact = load_diffusion(tiny_pack, CPU, torch.float32).unet.get_submodule(name).weight
    torch.testing.assert_close(weights[0].float(), (weights[1] - exact + base.float()).bfloat16().float())
