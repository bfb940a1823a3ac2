"""A classifier's tensors under documented names, and as one safetensors file.

Two layouts:

- `split`: `backbone.` and the library's own names of the network without a head; `head.weight` (K, D), `head.bias`
  (K,). With several backbones, the first is `backbones.` and the backbone's name.
- `native`: the library's own names of the network with a head of K classes, so that `timm.create_model` or torchvision
  load the file. Exists where the head works on raw features and is the library's own last layer.

Imports nothing of the application but this package; runs on pool threads.
"""

import copy
import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.exporting.classifier import Classifier, ModelFacts, Network
from app.exporting.networks import BUILD_ERRORS, build, features_of, head_of, modules_of

Tensors = dict[str, torch.Tensor]

HEAD = "head."
METADATA = "classifier"

_MAX_LOGIT_DIFFERENCE: Final = 1e-4


def split_tensors(classifier: Classifier) -> Tensors:
    """Return all tensors in the layout `split`, on the CPU, each with memory of its own."""
    head = {f"{HEAD}weight": torch.tensor(classifier.weight), f"{HEAD}bias": torch.tensor(classifier.bias)}
    pairs = zip(classifier.facts.backbones, modules_of(classifier.backbone), strict=True)
    return {
        f"{part.prefix}{name}": _own(tensor) for part, module in pairs for name, tensor in module.state_dict().items()
    } | head


def native_tensors(classifier: Classifier) -> Tensors | None:
    """Return all tensors in the layout `native`; None where that does not exist.

    The names are compared with those of the library's network; then a copy of the backbone with the head in its place
    is run on two pictures of noise.
    """
    facts = classifier.facts
    if facts.normalise or facts.network.library in ("transformers", "combined"):
        return None
    try:
        with torch.device("meta"):  # no time and no random numbers for weights that nobody reads
            network = build(facts.network, num_classes=len(facts.classes))
    except BUILD_ERRORS:
        return None
    layer = "fc" if facts.network.library == "torchvision" else _classifier_name(network)
    if layer is None:
        return None
    state = {name: _own(tensor) for name, tensor in classifier.backbone.state_dict().items()}
    state |= {f"{layer}.weight": torch.tensor(classifier.weight), f"{layer}.bias": torch.tensor(classifier.bias)}
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in state.items()} != wanted:
        return None
    return state if _is_last_layer(classifier, layer) else None


def write_safetensors(classifier: Classifier, target: Path) -> None:
    """Write one file in the layout `split`; equal classifiers give equal bytes.

    Its metadata has one key, `classifier`, with JSON: safetensors writes several keys in random order.
    """
    save_file(split_tensors(classifier), target, metadata={METADATA: dump_json(describe(classifier.facts))})


def read_split(path: Path, facts: ModelFacts) -> tuple[list[Tensors], Classifier]:
    """Read a file in the layout `split`.

    Returns:
        The tensors of each backbone, and a classifier whose backbone is the identity.
    """
    tensors = load_file(path)
    head = (tensors.pop(f"{HEAD}weight").numpy(), tensors.pop(f"{HEAD}bias").numpy())
    backbones = [
        {name.removeprefix(part.prefix): tensors[name] for name in tensors if name.startswith(part.prefix)}
        for part in facts.backbones
    ]
    return backbones, Classifier(facts, nn.Identity().eval(), *head)


def describe(facts: ModelFacts) -> dict[str, Any]:
    """Return what a program needs to use the tensors, and where they come from, as JSON values."""
    return {
        "name": facts.name,
        "architecture": _architecture(facts.network),
        "num_features": facts.num_features,
        "normalise": facts.normalise,
        "labels": list(facts.classes),
        "preprocessing": dict(facts.preprocessing),
        "licence": facts.origin.licence,
        "lineage": dict(facts.lineage),
    } | ({"backbones": _describe_parts(facts)} if facts.parts else {})


def _describe_parts(facts: ModelFacts) -> list[dict[str, Any]]:
    """Return the backbones in the order of their features, each divided by its L2 norm."""
    return [
        {
            "name": part.name,
            "architecture": _architecture(part.network),
            "normalise": True,
            "preprocessing": dict(part.preprocessing),
            "input": part.input,
            "tensors": part.prefix,
            "source": part.origin.source,
            "licence": part.origin.licence,
        }
        for part in facts.parts
    ]


def _architecture(network: Network) -> dict[str, Any]:
    return {"library": network.library, "name": network.name, "options": dict(network.options)}


def dump_json(values: Any, indent: int | None = None) -> str:
    """Write JSON with sorted keys and all text as it is: equal values give equal bytes."""
    return json.dumps(values, ensure_ascii=False, sort_keys=True, indent=indent, allow_nan=False)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous().clone()  # safetensors refuses tensors that share memory


def _classifier_name(network: nn.Module) -> str | None:
    """Return the name of timm's last layer; None where it has several or is not linear."""
    name = getattr(network, "pretrained_cfg", {}).get("classifier")
    if not isinstance(name, str):
        return None
    try:
        return name if isinstance(network.get_submodule(name), nn.Linear) else None
    except AttributeError:
        return None


@torch.inference_mode()
def _is_last_layer(classifier: Classifier, layer: str) -> bool:
    """Whether the backbone with the head in the place of `layer` computes head(features)."""
    head = head_of(classifier)
    trial = torch.randn(2, 3, *[classifier.facts.backbones[0].side] * 2, generator=torch.Generator().manual_seed(0))
    trial = trial.to(head.weight.device)
    expected = head(features_of(classifier.backbone, trial))
    whole = copy.deepcopy(classifier.backbone)
    try:
        whole.set_submodule(layer, head)
        logits = whole(trial)
    except BUILD_ERRORS:
        return False
    if logits.shape != expected.shape:
        return False
    return bool((logits - expected).abs().max() <= _MAX_LOGIT_DIFFERENCE * expected.abs().max().clamp(min=1e-6))
