from collections.abc import Callable
from typing import Any

import pytest
from huggingface_hub import ModelCard

from app.exporting.card import model_card
from app.exporting.classifier import ModelFacts, Network, Origin, Part
from app.exporting.errors import NotExportable
from app.exporting.networks import rebuild

Facts = Callable[..., ModelFacts]

HOSTILE = (
    "quote \" and ' and \\",
    "line\nbreak\n---\nlicense: mit\n---\n# title",
    "ثعلب",
    "\u202eright to left",
    "<img src=x onerror=alert(1)>",
    "| cell | [link](javascript:alert(1))",
    "{{ jinja }} {% raw %} ${x} #{y}",
    "```\nprint(1)\n```",
    "",
)
METRICS: dict[str, Any] = {
    "test": {
        "synthetic": {"n": 200, "accuracy": {"value": 1.0, "low": 0.981, "high": 1.0, "n": 200}, "macro_f1": 1.0},
        "real": {"n": 153, "accuracy": {"value": 0.948, "low": 0.9, "high": 0.977, "n": 153}, "macro_f1": 0.94},
        "headline": {"source": "real", "sentence": "0.948 of 153 real images are right."},
        "baselines": {"majority": {"accuracy": {"value": 0.542, "low": 0.463, "high": 0.619, "n": 153}}},
    }
}


def test_the_header_is_what_the_hub_reads(facts: Facts) -> None:
    origin = Origin("Google", base_model="timm/tf_efficientnet_lite0.in1k", licence="Apache-2.0")
    card = ModelCard(model_card(facts(metrics=METRICS, origin=origin, lineage={"dataset": {"name": "pets"}})))

    assert card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.base_model == "timm/tf_efficientnet_lite0.in1k"
    results = card.data.eval_results
    assert results is not None
    assert [(one.dataset_name, one.metric_type, one.metric_value) for one in results] == [
        ("pets (real images)", "accuracy", 0.948),
        ("pets (real images)", "f1", 0.94),
        ("pets (generated images)", "accuracy", 1.0),
        ("pets (generated images)", "f1", 1.0),
    ]
    assert results[0].metric_args == {"low": 0.9, "high": 0.977, "n": 153}


def test_the_text_has_each_figure_with_its_interval_and_the_real_ones_first(facts: Facts) -> None:
    text = model_card(facts(metrics=METRICS))
    real = text.index("| real images | accuracy | 0.948 | 0.900 to 0.977 | 153 |")
    generated = text.index("| generated images | accuracy | 1.000 | 0.981 to 1.000 | 200 |")
    assert real < generated
    assert "| majority | 0.542 | 0.463 to 0.619 |" in text
    assert "0\\.948 of 153 real images are right\\." in text
    assert "There were no real test images" not in text


def test_figures_of_generated_images_alone_are_called_so(facts: Facts) -> None:
    test = {name: value for name, value in METRICS["test"].items() if name != "real"}
    assert "There were no real test images" in model_card(facts(metrics={"test": test}))


@pytest.mark.parametrize("metrics", [{}, {"test": None}, {"test": {"real": None, "synthetic": None}}])
def test_a_model_without_a_test_says_so(facts: Facts, metrics: dict[str, Any]) -> None:
    text = model_card(facts(metrics=metrics))
    assert "The model was not tested." in text
    assert ModelCard(text).data.eval_results is None


def test_an_unknown_licence_is_not_called_free(facts: Facts) -> None:
    text = model_card(facts(origin=Origin("somewhere")))
    assert ModelCard(text).data.license == "other"
    assert "ask there before passing them on" in text


def test_names_of_any_text_change_neither_header_nor_structure(facts: Facts) -> None:
    hostile = "\n---\nlicense: mit\n---\n<b>"
    plain = model_card(facts(metrics=METRICS, classes=tuple("x" * len(HOSTILE)), lineage={"dataset": {"name": "d"}}))
    text = model_card(
        facts(
            metrics=METRICS,
            name=hostile,
            classes=HOSTILE,
            lineage={"dataset": {"name": hostile}},
            origin=Origin(hostile),
        )
    )
    card = ModelCard(text)
    assert card.data.license == "other"
    assert card.data.model_name == "--- license: mit --- <b>"
    body = text.split("\n---\n", 1)[1]
    assert [line for line in body.splitlines() if line.startswith("## ")] == [
        line for line in plain.splitlines() if line.startswith("## ")
    ]
    assert sum(line.startswith("# ") for line in body.splitlines()) == 1
    assert len(body.splitlines()) == len(plain.split("\n---\n", 1)[1].splitlines())
    assert "<" not in body
    assert "\u202e" not in text


def test_a_thousand_classes_stay_a_short_card(facts: Facts) -> None:
    text = model_card(facts(classes=tuple(f"class number {number}" for number in range(1000))))
    assert "and 950 more" in text
    assert len(text) < 6000


def test_equal_facts_give_equal_text(facts: Facts) -> None:
    first = facts(lineage={"b": {"y": 1, "x": [1, 2]}, "a": 1})
    second = facts(lineage={"a": 1, "b": {"x": [1, 2], "y": 1}})
    assert model_card(first) == model_card(second)


def test_several_backbones_have_a_card_with_a_licence_for_each(facts: Facts) -> None:
    network = Network("combined", "resnet18 + clip")
    clip = Origin("OpenAI", base_model="openai/clip-vit-base-patch32", licence="MIT", notices="Copyright (c) OpenAI")
    parts = (
        Part(
            "resnet18", Network("torchvision", "resnet18"), {"crop": 8}, Origin("torchvision", licence="BSD-3-Clause")
        ),
        Part("clip", Network("transformers", "CLIPVisionModelWithProjection"), {"crop": 16}, clip),
    )
    text = model_card(facts(network=network, preprocessing={}, parts=parts, origin=Origin("both")))
    header = ModelCard(text).data
    assert (header.license, header.license_name) == ("other", "several, see the text")
    assert header.base_model == ["openai/clip-vit-base-patch32"]
    assert "2 backbones side by side, those of each divided by their L2 norm" in text
    assert "- resnet18: BSD\\-3\\-Clause." in text
    assert "- clip: MIT. Copyright \\(c\\) OpenAI" in text
    with pytest.raises(NotExportable):
        rebuild(network, {})
