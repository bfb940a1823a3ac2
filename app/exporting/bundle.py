"""A bundle: one zip with everything that the classifier needs outside of Foxhound.

`model.safetensors` (backbone and head), `config.json` (in the form of timm's hub), `preprocessing.json`, `labels.txt`,
`predict.py`, `README.md` (the model card), `LICENSE` and `NOTICE` of the weights. Imports nothing of the application
but this package; runs on pool threads.
"""

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

from safetensors.torch import save_file

from app.exporting.card import model_card
from app.exporting.classifier import Classifier, ModelFacts
from app.exporting.names import one_line
from app.exporting.scripts import REQUIREMENTS, predict_script
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
        "config.json": dump_json(_config(facts, is_native=is_native), indent=2) + "\n",
        "labels.txt": "".join(f"{one_line(name) or f'class {number}'}\n" for number, name in enumerate(facts.classes)),
        "predict.py": predict_script(facts, is_native=is_native),
        "preprocessing.json": dump_json(dict(facts.preprocessing), indent=2) + "\n",
        "NOTICE": _notice(facts),
    }
    if facts.origin.licence == _APACHE:
        texts["LICENSE"] = (Path(__file__).parent / "texts" / "apache-2.0.txt").read_text(encoding="utf-8")
    return texts


def _config(facts: ModelFacts, *, is_native: bool) -> dict[str, Any]:
    """Return `config.json`; in the layout `native`, timm loads it by `local-dir:`.

    Source: timm `load_model_config_from_path`.
    """
    settings = facts.preprocessing
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
            "input_size": [3, facts.side, facts.side],
            "interpolation": settings.get("interpolation", "bilinear"),
            "crop_pct": settings.get("crop_pct") or facts.side / int(settings["resize"]),
            "crop_mode": settings.get("crop_mode", "center"),
            "mean": list(settings["mean"]),
            "std": list(settings["std"]),
            "num_classes": len(facts.classes),
            "license": (facts.origin.licence or "other").lower(),
        },
    }


def _usage(facts: ModelFacts, *, is_native: bool) -> str:
    needs = REQUIREMENTS[facts.network.library]
    lines = [
        f"`python predict.py picture.jpg` prints the most probable class. It needs {needs}, and nothing of Foxhound; "
        "its lines show how to load the files.",
        "`model.safetensors` has the "
        + (
            f"names of {facts.network.library}'s own network with its head."
            if is_native
            else "tensors `backbone.*` (the library's names), `head.weight` (K, D) and `head.bias` (K,)."
        ),
        "`config.json` has the exact class names in the order of the outputs; `labels.txt` has them one a line, "
        "without characters that would break a line.",
    ]
    if facts.network.library == "transformers":
        lines.append("The backbone is the image tower of a CLIP model, `CLIPVisionModelWithProjection`.")
    return "\n".join(f"- {line}" for line in lines)


def _notice(facts: ModelFacts) -> str:
    origin = facts.origin
    terms = origin.licence or "Not stated by the source: ask there before passing the weights on."
    return (
        f"Weights of the backbone: {one_line(origin.source)}\nLicence: {one_line(terms)}\n{origin.notices}\n\n"
        "Changes: stored as safetensors, together with a linear head that was trained with Foxhound.\n"
    )


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
