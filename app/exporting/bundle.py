"""A bundle: one zip with everything that the classifier needs outside of Foxhound.

`model.safetensors` (backbones and head), `config.json` (of one backbone in the form of timm's hub),
`preprocessing.json`, `labels.txt`, `predict.py`, `README.md` (the model card), `LICENSE` and `NOTICE` of the weights.
Imports nothing of the application but this package; runs on pool threads.
"""

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from safetensors.torch import save_file

from app.exporting.card import model_card
from app.exporting.classifier import Classifier, ModelFacts, Origin
from app.exporting.names import one_line
from app.exporting.scripts import predict_script, requirements, transform_of
from app.exporting.tensors import METADATA, describe, dump_json, native_tensors, split_tensors

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the least date that a zip can have
_CHUNK = 1 << 20
_APACHE: Final = "Apache-2.0"
_WEIGHTS = "model.safetensors"


def export_bundle(classifier: Classifier, target: Path) -> None:
    """Write the zip; equal classifiers give equal bytes with the same version of safetensors.

    Entries are stored, not compressed: weights do not shrink, and compressed bytes depend on zlib's version.

    Args:
        classifier: May be on any device.
        target: The file to write; its folder exists.

    Raises:
        OSError: The disk is full, or a folder cannot be written.
    """
    native = native_tensors(classifier)
    tensors = split_tensors(classifier) if native is None else native
    metadata = {METADATA: dump_json(describe(classifier.facts))}
    texts = _texts(classifier.facts, is_native=native is not None)
    with tempfile.TemporaryDirectory(prefix="foxhound-export-", dir=target.parent) as folder:
        weights = Path(folder) / _WEIGHTS
        save_file(tensors, weights, metadata=metadata)
        with zipfile.ZipFile(target, "w") as archive:
            for name, text in sorted(texts.items()):
                _add_text(archive, name, text)
            with weights.open("rb") as file:
                _add_file(archive, _WEIGHTS, file, weights.stat().st_size)


def _texts(facts: ModelFacts, *, is_native: bool) -> Mapping[str, str]:
    texts = {
        "README.md": model_card(facts, usage=_usage(facts, is_native=is_native)),
        "config.json": dump_json(
            _config(facts, is_native=is_native) if not facts.parts else _config_of_parts(facts), indent=2
        )
        + "\n",
        "labels.txt": "".join(f"{one_line(name) or f'class {number}'}\n" for number, name in enumerate(facts.classes)),
        "predict.py": predict_script(facts, is_native=is_native),
        "preprocessing.json": dump_json(dict(facts.preprocessing), indent=2) + "\n",
        "NOTICE": _notice(facts),
    }
    if any(part.origin.licence == _APACHE for part in facts.backbones):
        texts["LICENSE"] = (Path(__file__).parent / "texts" / "apache-2.0.txt").read_text(encoding="utf-8")
    return texts


def _config(facts: ModelFacts, *, is_native: bool) -> dict[str, Any]:
    """Return `config.json`; in the layout `native`, timm loads it by `local-dir:`.

    Source: timm `load_model_config_from_path`.
    """
    settings = facts.preprocessing
    side = facts.backbones[0].side
    return {
        "architecture": facts.network.name,
        "library": facts.network.library,
        "layout": "native" if is_native else "split",
        "normalise": facts.normalise,
        "num_classes": len(facts.classes),
        "num_features": facts.num_features,
        "label_names": list(facts.classes),
        "model_args": dict(facts.network.options),
        "pretrained_cfg": {
            "input_size": [3, side, side],
            "interpolation": settings.get("interpolation", "bilinear"),
            "crop_pct": settings.get("crop_pct") or side / int(settings["resize"]),
            "crop_mode": settings.get("crop_mode", "center"),
            "mean": list(settings["mean"]),
            "std": list(settings["std"]),
            "num_classes": len(facts.classes),
            "license": (facts.origin.licence or "other").lower(),
        },
    }


def _config_of_parts(facts: ModelFacts) -> dict[str, Any]:
    """Return `config.json` of several backbones: how `predict.py` builds each."""
    return {
        "layout": "split",
        "library": facts.network.library,
        "normalise": facts.normalise,
        "num_classes": len(facts.classes),
        "num_features": facts.num_features,
        "label_names": list(facts.classes),
        "backbones": [
            {
                "name": part.name,
                "library": part.network.library,
                "architecture": part.network.name,
                "model_args": dict(part.network.options),
                "preprocessing": dict(part.preprocessing),
                "transform": transform_of(part),
                "license": (part.origin.licence or "other").lower(),
            }
            for part in facts.parts
        ],
    }


def _usage(facts: ModelFacts, *, is_native: bool) -> str:
    needs = requirements(facts)
    tensors = "backbones.NAME.*" if facts.parts else "backbone.*"
    lines = [
        f"`python predict.py picture.jpg` prints the most probable class. It needs {needs}, and nothing of Foxhound; "
        "its lines show how to load the files.",
        "`model.safetensors` has the "
        + (
            f"names of {facts.network.library}'s own network with its head."
            if is_native
            else f"tensors `{tensors}` (the library's names), `head.weight` (K, D) and `head.bias` (K,)."
        ),
        "`config.json` has the exact class names in the order of the outputs; `labels.txt` has them one a line, "
        "without characters that would break a line.",
    ]
    for part in facts.backbones:
        if part.network.library == "transformers":
            name = f"The backbone {part.name}" if part.name else "The backbone"
            lines.append(f"{name} is the image tower of a CLIP model, `CLIPVisionModelWithProjection`.")
    return "\n".join(f"- {line}" for line in lines)


def _notice(facts: ModelFacts) -> str:
    """Return the source and licence of each backbone's weights, and what was changed."""
    blocks = [_notice_of(f"the backbone {part.name}".strip(), part.origin) for part in facts.backbones]
    return (
        "".join(blocks)
        + "Changes: stored as safetensors, together with a linear head that was trained with Foxhound.\n"
    )


def _notice_of(what: str, origin: Origin) -> str:
    terms = origin.licence or "Not stated by the source: ask there before passing the weights on."
    return f"Weights of {what}: {one_line(origin.source)}\nLicence: {one_line(terms)}\n{origin.notices}\n\n"


def _add_text(archive: zipfile.ZipFile, name: str, text: str) -> None:
    archive.writestr(_entry(name), text.encode())


def _add_file(archive: zipfile.ZipFile, name: str, file: IO[bytes], size: int) -> None:
    entry = _entry(name)
    entry.file_size = size  # tells zipfile whether the entry needs zip64
    with archive.open(entry, "w") as target:
        while chunk := file.read(_CHUNK):
            target.write(chunk)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    entry.create_system = 3  # Unix on every machine
    return entry
