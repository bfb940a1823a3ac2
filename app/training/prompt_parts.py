"""What each part of the recipe `from_prompts` gave: the same training with one part switched off, on the same test.

Works on arrays. Runs in the worker, on the CPU, on the thread of its caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.training.comparison import PairedDifference, compare_paired
from app.training.from_prompts import CLIP, Bools, PromptRows, PromptSettings, fit_from_prompts, predict_classes
from app.training.intervals import Interval, wilson
from app.training.probe import Features, Labels, LinearProbe


@dataclass(frozen=True, slots=True)
class PartResult:
    """The recipe without one part, on real test images.

    Attributes:
        part: The name of the part; "all on" for the whole recipe.
        accuracy: Without the part.
        against_baseline: Accuracy minus the baseline's on the same images.
        gain: Accuracy of the whole recipe minus `accuracy`: what the part gave; None for the whole recipe.
    """

    part: str
    accuracy: Interval
    against_baseline: PairedDifference
    gain: PairedDifference | None


def without_each_part(settings: PromptSettings) -> dict[str, PromptSettings]:
    """Return the settings with each part that is on switched off in turn, by the part's name."""
    off: dict[str, PromptSettings] = {}
    if settings.uses_views:
        off["views by other hands"] = replace(settings, uses_views=False)
    if settings.filters:
        off["CLIP filter"] = replace(settings, filters=False)
    if settings.soft_share:
        off["soft labels"] = replace(settings, soft_share=0.0)
    if CLIP in settings.backbones and settings.starts_from_text:
        off["start from text"] = replace(settings, starts_from_text=False)
    if CLIP in settings.backbones and settings.alpha < 1:
        off["blend with zero-shot"] = replace(settings, alpha=1.0)
    if len(settings.backbones) > 1:
        for name in settings.backbones:
            kept = tuple(other for other in settings.backbones if other != name)
            off[f"backbone {name}"] = replace(settings, backbones=kept)
    return off


def measure_parts(
    rows: PromptRows,
    zero_shot: LinearProbe,
    settings: PromptSettings,
    test_features: Mapping[str, Features],
    test_labels: Labels,
    baseline_right: Bools,
) -> tuple[PartResult, ...]:
    """Train once with all parts and once without each; nothing is chosen by the results.

    Args:
        rows: Generated images and their views.
        zero_shot: CLIP's zero-shot head.
        settings: The parts that are on.
        test_features: Real images, by backbone.
        test_labels: Their classes, (M,), M >= 1.
        baseline_right: Whether a baseline is right on each, (M,): CLIP zero-shot, in most cases.
    """

    def is_right(part: PromptSettings) -> Bools:
        right: Bools = predict_classes(fit_from_prompts(rows, zero_shot, part), test_features) == test_labels
        return right

    whole = is_right(settings)
    results = [PartResult("all on", wilson(int(whole.sum()), len(whole)), compare_paired(whole, baseline_right), None)]
    for part, reduced in without_each_part(settings).items():
        right = is_right(reduced)
        accuracy = wilson(int(right.sum()), len(right))
        results.append(PartResult(part, accuracy, compare_paired(right, baseline_right), compare_paired(whole, right)))
    return tuple(results)
