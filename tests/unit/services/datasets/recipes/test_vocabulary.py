"""Prompts of the preset: the words of each pack, articles and synonyms."""

import pytest

from app.schemas.datasets import DatasetCreate
from app.services.datasets.recipes.templates import parse_template
from app.services.datasets.recipes.vocabulary import DEMO, GENERAL, Vocabulary, make_recipe, vocabulary_of
from demo_pack.drawing.captions import said
from demo_pack.drawing.world import BACKGROUNDS, CLASSES, COLOURS, STYLES

PLAIN = Vocabulary(styles=("a photo of", ""), backgrounds=("", "at night"))


def filled(template: str, **values: str) -> str:
    return parse_template(template).fill(values)


def test_a_class_is_asked_for_with_and_without_a_tone_in_each_of_its_words() -> None:
    vocabulary = Vocabulary(("a sketch of",), ("",), ("a red",), {"dog": ("puppy",)})
    (prompts,) = make_recipe(["dog"], vocabulary).prompts
    values = {"style": "a sketch of", "background": "", "tone": "a red"}
    assert [filled(prompt, **values) for prompt in prompts] == [
        "a sketch of a dog",
        "a sketch of a red dog",
        "a sketch of a puppy",
        "a sketch of a red puppy",
    ]


def test_an_article_fits_the_word_and_braces_stay_literal() -> None:
    recipe = make_recipe(["owl", "{x}"], PLAIN)
    assert filled(recipe.prompts[0][0], style="a photo of", background="at night") == "a photo of an owl at night"
    assert filled(recipe.prompts[1][0], style="", background="") == "a {x}"


def test_every_word_for_the_demo_pack_was_in_its_drawings() -> None:
    """Words that the pack never saw made worse images (training-trial: `diverse` lost to one fixed prompt)."""
    assert {style for style in DEMO.styles if style} <= {phrase for found in STYLES.values() for phrase in found}
    assert {place for place in DEMO.backgrounds if place} <= {
        phrase for found in BACKGROUNDS.values() for phrase in found
    }
    assert {tone.split()[1] for tone in DEMO.tones} <= set(COLOURS)
    for name, prompts in zip(CLASSES, make_recipe(CLASSES, DEMO).prompts, strict=True):
        for prompt in prompts:
            text = filled(prompt, style="a pencil sketch of", background="at night", tone="an orange")
            assert said(text).class_name == name


@pytest.mark.parametrize("vocabulary", [DEMO, GENERAL, PLAIN])
def test_a_dataset_takes_the_recipe_as_it_is(vocabulary: Vocabulary) -> None:
    recipe = make_recipe(["fox", "dog"], vocabulary)
    classes = [{"name": name, "prompts": texts} for name, texts in zip(("fox", "dog"), recipe.prompts, strict=True)]
    request = DatasetCreate.model_validate({"name": "a", "classes": classes, "variables": recipe.variables})
    used = {name for entry in request.classes for text in entry.prompts for name in parse_template(text).variables}
    assert used == set(recipe.variables)
    assert (recipe.guidance.min, recipe.guidance.max) == (1, 5)


def test_packs_have_their_own_vocabulary() -> None:
    assert vocabulary_of("demo") is DEMO
    assert vocabulary_of("sd15") is GENERAL
