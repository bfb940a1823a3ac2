"""The model card: Markdown with a YAML header as Hugging Face's hub reads it.

Works on plain values and needs no weights. Imports huggingface_hub for the header; any thread.

Source: huggingface_hub `ModelCardData` and `EvalResult`; Mitchell et al., Model Cards for Model Reporting, 2019.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from huggingface_hub import EvalResult, ModelCardData

from app.exporting.classifier import ModelFacts, Origin
from app.exporting.names import markdown, one_line

_MAX_CLASSES = 50
_MAX_FACTS = 80
_MAX_TEXT = 200
# A metric's source in the JSON, and what the card calls it.
_SOURCES: Final = {
    "real": "real images",
    "synthetic": "generated images",
    "unseparated": "real and generated images, not measured apart",
}

_INPUT: Final = (
    "RGB. Resize the shorter side to `resize` pixels, cut `crop` pixels out of the middle, divide by 255, subtract "
    "`mean`, divide by `std`. `library` names whose transform that is: transformers rounds an odd margin down, the "
    "others to an even number."
)

_UNSTATED: Final = "Not stated by their source: ask there before passing them on."


def model_card(facts: ModelFacts, usage: str | None = None) -> str:
    """Write the card of a model.

    Figures are those of the split `test`, each with its 95 % interval and number of images where the metrics have them;
    real and generated images stay apart, the real ones first. Equal facts give equal text.

    Args:
        facts: Names in it may be any text.
        usage: Markdown about loading the files; None: the card says which export to ask for.
    """
    header = _header(facts).to_yaml(line_break="\n")
    sections = [
        f"# {markdown(facts.name)}",
        _introduction(facts),
        "## Results on test images",
        *_results(facts),
        "## Use",
        usage or "`GET /models/{id}/export?format=bundle` gives this model with a script that loads it.",
        "## Classes",
        _classes(facts.classes),
        "## Input",
        _INPUT,
        _table(_flat(facts.preprocessing), "setting", "value") if facts.preprocessing else "Not recorded.",
        "## Lineage",
        _table(_flat(facts.lineage), "fact", "value") if facts.lineage else "Not recorded.",
        "## Limits",
        "The model knows only its classes: any picture gets one of them. The intervals assume independent images like "
        "those of the test; other pictures may give other figures.",
        "## Licence of the weights",
        _licence(facts),
    ]
    return f"---\n{header}\n---\n\n" + "\n\n".join(sections) + "\n"


def _header(facts: ModelFacts) -> ModelCardData:
    licence = facts.origin.licence
    bases = [one_line(part.origin.base_model) for part in facts.backbones if part.origin.base_model]
    is_timm = facts.network.library == "timm" and not facts.normalise
    results = list(_eval_results(facts))
    return ModelCardData(
        license=licence.lower() if licence else "other",
        license_name=None if licence else _licence_name(facts),
        base_model=(bases if facts.parts else bases[0]) if bases else None,
        library_name="timm" if is_timm else "pytorch",
        pipeline_tag="image-classification",
        tags=["image-classification", "linear-probe"],
        metrics=["accuracy", "f1"] if results else None,
        model_name=one_line(facts.name) if results else None,
        eval_results=results or None,
    )


def _introduction(facts: ModelFacts) -> str:
    if facts.parts:
        features, kind = f"{len(facts.parts)} backbones side by side", "those of each divided by their L2 norm"
        weights = "\n\n" + "\n".join(
            f"- {markdown(f'{part.name}: {part.network.name} ({part.network.library})')}. "
            f"Weights: {markdown(part.origin.source)}."
            for part in facts.parts
        )
    else:
        features = markdown(f"{facts.network.name} ({facts.network.library})")
        kind = "divided by their L2 norm" if facts.normalise else "as they are"
        weights = f" Weights of the backbone: {markdown(facts.origin.source)}."
    return (
        f"An image classifier of {len(facts.classes)} classes: a linear layer on the {facts.num_features} features of "
        f"{features}, {kind}.{weights}"
    )


def _measured(facts: ModelFacts) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the test's metrics by source, the real ones first."""
    test = facts.metrics.get("test")
    for source in _SOURCES:
        measured = test.get(source) if isinstance(test, Mapping) else None
        if isinstance(measured, Mapping):
            yield source, measured


def _eval_results(facts: ModelFacts) -> Iterator[EvalResult]:
    dataset = facts.lineage.get("dataset")
    name = one_line(str(dataset.get("name") or "")) if isinstance(dataset, Mapping) else ""
    for source, measured in _measured(facts):
        for key, kind, label in (("accuracy", "accuracy", "Accuracy"), ("macro_f1", "f1", "Macro F1")):
            value, interval = _value(measured.get(key))
            if value is not None:
                yield EvalResult(
                    task_type="image-classification",
                    dataset_type="imagefolder",
                    dataset_name=f"{name or 'test images'} ({_SOURCES[source]})",
                    dataset_config=source,  # the hub merges results that differ in the name alone
                    dataset_split="test",
                    metric_type=kind,
                    metric_name=label,
                    metric_value=value,
                    metric_args=interval,
                )


def _results(facts: ModelFacts) -> list[str]:
    rows = []
    for source, measured in _measured(facts):
        for key, label in _LABELS.items():
            value, interval = _value(measured.get(key))
            if value is not None:
                bounds = f"{interval['low']:.3f} to {interval['high']:.3f}" if interval else ""
                count = (interval or {}).get("n") or measured.get("n") or ""
                rows.append(f"| {_SOURCES[source]} | {label} | {value:.3f} | {bounds} | {count} |")
    if not rows:
        return ["The model was not tested."]
    parts = ["| images | metric | value | 95 % interval | n |\n| --- | --- | --- | --- | --- |\n" + "\n".join(rows)]
    test = facts.metrics["test"]
    headline = test.get("headline")
    if isinstance(headline, Mapping) and isinstance(headline.get("sentence"), str):
        parts.insert(0, markdown(headline["sentence"]))
    if not isinstance(test.get("real"), Mapping):
        parts.append("There were no real test images: figures of generated images are higher than those of real ones.")
    return [*parts, *_baselines(test.get("baselines"))]


_LABELS: Final = {
    "accuracy": "accuracy",
    "top_5": "top-5 accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "ece": "expected calibration error",
    "brier": "Brier score",
}


def _baselines(baselines: object) -> list[str]:
    rows = []
    for name, baseline in baselines.items() if isinstance(baselines, Mapping) else ():
        value, interval = _value(baseline.get("accuracy")) if isinstance(baseline, Mapping) else (None, None)
        if value is not None:
            bounds = f"{interval['low']:.3f} to {interval['high']:.3f}" if interval else ""
            rows.append(f"| {markdown(str(name).replace('_', ' '))} | {value:.3f} | {bounds} |")
    return ["| baseline | accuracy | 95 % interval |\n| --- | --- | --- |\n" + "\n".join(rows)] if rows else []


def _value(measured: object) -> tuple[float | None, dict[str, Any] | None]:
    """Read a number, or a mapping of `value`, `low`, `high` and `n`."""
    if isinstance(measured, int | float):
        return float(measured), None
    if isinstance(measured, Mapping) and isinstance(measured.get("value"), int | float):
        has_bounds = all(isinstance(measured.get(key), int | float) for key in ("low", "high"))
        interval = {key: measured[key] for key in ("low", "high", "n") if key in measured}
        return float(measured["value"]), interval if has_bounds else None
    return None, None


def _classes(classes: tuple[str, ...]) -> str:
    lines = [f"{number}. {markdown(name) or '(no visible name)'}" for number, name in enumerate(classes[:_MAX_CLASSES])]
    if len(classes) > _MAX_CLASSES:
        lines.append(f"\nand {len(classes) - _MAX_CLASSES} more, which the files name.")
    return "\n".join(lines)


def _flat(values: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested mappings with their dotted names; a list is one leaf."""
    if isinstance(values, Mapping):
        for key in sorted(values, key=str):
            yield from _flat(values[key], f"{prefix}.{key}" if prefix else str(key))
    else:
        text = ", ".join(map(str, values)) if isinstance(values, list | tuple) else str(values)
        yield prefix, text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _table(facts: Iterator[tuple[str, str]], left: str, right: str) -> str:
    rows = [f"| {markdown(key)} | {markdown(value)} |" for key, value in facts]
    if len(rows) > _MAX_FACTS:
        rows = [*rows[:_MAX_FACTS], f"| and {len(rows) - _MAX_FACTS} more | |"]
    return f"| {left} | {right} |\n| --- | --- |\n" + "\n".join(rows)


def _licence_name(facts: ModelFacts) -> str:
    is_stated = all(part.origin.licence for part in facts.backbones)
    return "several, see the text" if is_stated else "not-stated"


def _licence(facts: ModelFacts) -> str:
    lines = [f"- {markdown(part.name)}: {_licence_of(part.origin)}" for part in facts.parts]
    return "\n".join(lines) or _licence_of(facts.origin)


def _licence_of(origin: Origin) -> str:
    stated = f"{markdown(origin.licence)}." if origin.licence else _UNSTATED
    return f"{stated} {markdown(origin.notices)}".strip()
