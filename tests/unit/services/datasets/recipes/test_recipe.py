"""What each image of a dataset is drawn from follows from the recipe, its place and the attempt alone."""

from collections import Counter

import pytest

from app.db.models import Dataset
from app.modelpacks.pack import ModelPack, demo_pack_folder
from app.schemas.datasets import DatasetCreate
from app.schemas.recipes import DEFAULT_SHOT_STRENGTH
from app.services.datasets.recipes.presets import BACKGROUNDS, STYLES, with_preset
from app.services.datasets.recipes.recipe import Recipe, Slot
from app.services.datasets.recipes.seeds import image_seed
from app.services.datasets.records import new_dataset, pixel_steps
from app.services.images.spec import SizeRules
from app.step_rows import first_step

SIZES = SizeRules(native=64, min_side=64, max_side=128, default_scheduler="pndm")
PACK = ModelPack("demo", "1", "Apache-2.0", demo_pack_folder(), 64, 64, 128, "pndm")
VARIABLES = {"style": ["a photo of", "a sketch of"], "place": ["", "at night", "in snow"]}
CLASSES = [
    {"name": "fox", "prompts": ["{style} a fox {place}"]},
    {"name": "dog", "prompts": ["a dog", "a {style} dog"]},
]


def request(**changes: object) -> DatasetCreate:
    fields = {"name": "d", "seed": 7, "classes": CLASSES, "variables": VARIABLES, "train_per_class": 12, **changes}
    return DatasetCreate.model_validate(fields)


def dataset(**changes: object) -> Dataset:
    return new_dataset(request(**changes), SIZES, PACK, job_id=None)


def prompts(recipe: Recipe, num: int, class_index: int = 0, attempt: int = 0) -> list[str]:
    return [recipe.draw(Slot("train", class_index, k), attempt).spec.prompt for k in range(num)]


def test_cartesian_gives_each_combination_as_often_as_the_next() -> None:
    counts = Counter(prompts(Recipe(dataset()), 12))
    assert set(counts.values()) == {2}
    assert len(counts) == 6
    assert counts["a photo of a fox at night"] == 2


def test_cartesian_walks_through_each_of_several_prompts() -> None:
    made = prompts(Recipe(dataset()), 4, class_index=1)
    assert made == ["a dog", "a a photo of dog", "a dog", "a a sketch of dog"]


def test_cartesian_keeps_a_places_prompt_over_attempts_and_sampled_draws_anew() -> None:
    walked, drawn = Recipe(dataset()), Recipe(dataset(combine="sampled"))
    place = Slot("train", 0, 3)
    assert len({walked.draw(place, attempt).spec.prompt for attempt in range(20)}) == 1
    assert len({drawn.draw(place, attempt).spec.prompt for attempt in range(20)}) > 1
    assert walked.draw(place, 1).spec.seed == image_seed(7, "fox", "train", 3, 1)


def test_sampled_draws_every_value_about_equally_often() -> None:
    counts = Counter(prompts(Recipe(dataset(combine="sampled")), 600))
    assert len(counts) == 6
    assert min(counts.values()) > 60


def test_ranges_are_drawn_in_tenths_and_whole_steps_with_both_ends() -> None:
    generation = {"guidance_scale": {"min": 1.0, "max": 1.5}, "num_inference_steps": {"min": 10, "max": 12}}
    recipe = Recipe(dataset(generation=generation))
    specs = [recipe.draw(Slot("test", 1, k), 0).spec for k in range(200)]
    assert {spec.guidance_scale for spec in specs} == {1.0, 1.1, 1.2, 1.3, 1.4, 1.5}
    assert {spec.num_inference_steps for spec in specs} == {10, 11, 12}


def test_a_variable_more_changes_no_other_draw() -> None:
    one = Recipe(dataset(combine="sampled", classes=[{"name": "fox", "prompts": ["{style}"]}, CLASSES[1]]))
    two = Recipe(dataset(combine="sampled"))
    for k in range(20):
        drawn = [recipe.draw(Slot("train", 0, k), 0).lineage["variables"]["style"] for recipe in (one, two)]
        assert drawn[0] == drawn[1]


def test_a_draw_never_changes() -> None:
    """A change here would silently give every dataset other images."""
    generation = {"guidance_scale": {"min": 1.0, "max": 5.0}, "num_inference_steps": {"min": 10, "max": 50}}
    drawn = Recipe(dataset(combine="sampled", generation=generation)).draw(Slot("train", 0, 0), 0)
    spec = drawn.spec
    assert (spec.prompt, spec.guidance_scale, spec.num_inference_steps) == ("a sketch of a fox at night", 4.1, 37)
    assert spec.seed == image_seed(7, "fox", "train", 0, 0)


def test_the_record_tells_what_was_drawn() -> None:
    lineage = Recipe(dataset()).draw(Slot("train", 0, 1), 2).lineage
    assert lineage == {
        "template": "{style} a fox {place}",
        "variables": {"style": "a sketch of", "place": "at night"},
        "attempt": 2,
    }


def test_a_dataset_from_before_there_were_recipes_has_plain_prompts() -> None:
    old = dataset(classes=[{"name": "fox", "prompts": ["a {{fox}}"]}, CLASSES[1]])
    old.recipe = None
    recipe = Recipe(old)
    assert prompts(recipe, 1) == ["a {{fox}}"]
    assert recipe.max_attempts == 3
    assert recipe.filter.apply(0, [0.1, 0.9]).decision == "kept"


@pytest.mark.parametrize(("own", "decision"), [(0.5, "kept"), (0.9, "kept"), (0.4999, "rejected")])
def test_the_filter_keeps_from_one_over_classes_on(own: float, decision: str) -> None:
    verdict = Recipe(dataset(filter={})).filter.apply(1, [1 - own, own])
    assert verdict.decision == decision
    assert verdict.reason is not None
    assert f"{own:.4f}" in verdict.reason


def test_clip_is_asked_for_the_label_or_the_name() -> None:
    classes = [{**CLASSES[0], "label": "red fox"}, CLASSES[1]]
    assert Recipe(dataset(classes=classes)).filter.texts == ["a photo of a red fox", "a photo of a dog"]


def test_of_many_scores_the_own_and_the_highest_are_kept_in_the_order_of_the_classes() -> None:
    classes = [{"name": f"c{k}", "prompts": ["x"]} for k in range(40)]
    recipe = Recipe(dataset(classes=classes, variables={}))
    scores = recipe.filter.scores(0, [k / 780 for k in range(40)])
    assert [score["label"] for score in scores] == ["c0", *(f"c{k}" for k in range(21, 40))]


def test_the_diverse_preset_varies_plain_prompts_and_filters() -> None:
    plain = [{"name": name, "prompts": [f"a {name}"]} for name in ("fox", "dog")]
    asked = request(preset="diverse", variables={}, classes=plain)
    settled = with_preset(asked, pack="demo")
    assert settled.classes[0].prompts == ["{style} a fox {background}"]
    assert settled.variables == {"style": STYLES, "background": BACKGROUNDS}
    assert settled.combine == "sampled"
    assert settled.filter is not None
    drawn = Recipe(new_dataset(asked, SIZES, PACK, job_id=None)).draw(Slot("train", 0, 0), 0)
    assert 1 <= drawn.spec.guidance_scale <= 5


def test_what_is_given_wins_over_the_preset() -> None:
    given = {
        "generation": {"guidance_scale": 7.5},
        "filter": None,
        "combine": "cartesian",
        "variables": {"style": ["a mosaic of"]},
        "classes": [{"name": "fox", "prompts": ["a {style} fox"]}, {"name": "dog", "prompts": ["a dog"]}],
    }
    settled = with_preset(request(preset="diverse", **given), pack="demo")
    assert settled.generation.guidance_scale == 7.5
    assert settled.filter is None
    assert settled.combine == "cartesian"
    assert settled.variables["style"] == ["a mosaic of"]
    assert [entry.prompts for entry in settled.classes] == [["a {style} fox"], ["{style} a dog {background}"]]


def test_speed_spacing_and_interval_are_those_of_every_image() -> None:
    generation = {"scheduler": "ddim", "speed": "balanced", "timestep_spacing": "trailing"}
    spec = Recipe(dataset(generation={**generation, "guidance_interval": [0.0, 0.8]})).draw(Slot("train", 0, 0), 0).spec
    assert (spec.speed, spec.timestep_spacing, spec.guidance_interval) == ("balanced", "trailing", (0.0, 0.8))


@pytest.mark.parametrize(
    ("generation", "steps"),
    [
        ({}, 50),
        ({"guidance_scale": 1.0}, 25.5),
        ({"speed": "balanced"}, 20),
        ({"num_inference_steps": {"min": 10, "max": 20}}, 15),
        ({"scheduler": "ddim", "guidance_scale": {"min": 0.6, "max": 1.5}}, 37.5),
    ],
)
def test_the_work_of_an_image_is_the_mean_of_what_may_be_drawn(generation: dict[str, object], steps: float) -> None:
    assert pixel_steps(dataset(generation=generation)) == 2 * (12 + 10) * steps * 64 * 64


def with_shots(num: int, **changes: object) -> Dataset:
    ids = [f"shot-{k}" for k in range(num)]
    entries = [{**CLASSES[0], "from_images": ids}, CLASSES[1]]
    hashes = {name: name.rjust(64, "0") for name in ids}
    return new_dataset(request(classes=entries, **changes), SIZES, PACK, job_id=None, shots=hashes)


def shots_used(recipe: Recipe, num: int, attempt: int = 0) -> list[str | None]:
    refs = [recipe.draw(Slot("train", 0, k), attempt).spec.init_image for k in range(num)]
    return [ref.image_id if ref else None for ref in refs]


def test_shots_take_turns_in_orders_that_differ_and_another_attempt_takes_another_shot() -> None:
    recipe = Recipe(with_shots(5))
    used = shots_used(recipe, 50)
    turns = [tuple(used[k : k + 5]) for k in range(0, 50, 5)]
    assert {tuple(sorted(str(name) for name in turn)) for turn in turns} == {tuple(f"shot-{k}" for k in range(5))}
    assert len(set(turns)) > 5
    assert shots_used(Recipe(with_shots(5)), 50) == used
    again = shots_used(recipe, 50, attempt=1)
    assert all(first != second for first, second in zip(used, again, strict=True))


def test_only_training_images_of_classes_with_shots_have_one() -> None:
    recipe = Recipe(with_shots(2))
    for slot in (Slot("test", 0, 0), Slot("validation", 0, 0), Slot("train", 1, 0)):
        spec = recipe.draw(slot, 0).spec
        assert (spec.init_image, spec.strength) == (None, None)
    spec = recipe.draw(Slot("train", 0, 0), 0).spec
    assert spec.strength == DEFAULT_SHOT_STRENGTH
    assert spec.init_image is not None
    assert spec.init_image.sha256 == str(spec.init_image.image_id).rjust(64, "0")


def test_the_other_splits_of_a_recipe_with_shots_are_those_of_one_without() -> None:
    with_them, without = Recipe(with_shots(2)), Recipe(dataset())
    for slot in (Slot("test", 0, 3), Slot("validation", 1, 2)):
        assert with_them.draw(slot, 0) == without.draw(slot, 0)


def test_strengths_of_a_range_are_drawn_in_twentieths_with_both_ends_and_counted_exactly() -> None:
    ranges = {"strength": {"min": 0.35, "max": 0.5}, "num_inference_steps": {"min": 9, "max": 10}}
    made = with_shots(2, generation={**ranges, "scheduler": "ddim"}, train_per_class=400, test_per_class=1)
    specs = [Recipe(made).draw(Slot("train", 0, k), 0).spec for k in range(400)]
    assert {spec.strength for spec in specs} == {0.35, 0.4, 0.45, 0.5}
    taken = [number - first_step(number, strength) for number in (9, 10) for strength in (0.35, 0.4, 0.45, 0.5)]
    assert {len(spec.step_rows) for spec in specs} == set(taken)
    with_a_shot = 400 * sum(taken) / len(taken)
    assert pixel_steps(made) == round((with_a_shot + 402 * 9.5) * 64 * 64)
