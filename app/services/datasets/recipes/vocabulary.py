"""The prompts of the preset `from_prompts`: from class names to templates over styles, backgrounds and tones.

A style, a background or a tone is only worth a prompt if the image model was trained on it: the demo pack, trained on
four styles of drawing, answers "a photo of a fox in a forest" with worse foxes, not with photographs. So every pack has
its own vocabulary. Imports no database and no engine. Pure functions; any thread may call them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.names import name_key
from app.schemas.recipes import GuidanceRange

# Sampled for each image. Source: Shipard et al. 2023 (arXiv 2302.03298); 7.5 favours appearance over variety.
GUIDANCE = GuidanceRange(min=1.0, max=5.0)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that an image model was trained on beside its subjects; "" leaves a word out.

    Attributes:
        styles: How a picture is made, each ending where the subject follows.
        backgrounds: Where the subject is, with the preposition.
        tones: An article and a colour, such as "a red"; empty: prompts name no colour.
        synonyms: Further words for a class name; the name itself always comes first.
    """

    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]
    tones: tuple[str, ...] = ()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


# The words of the drawings that the demo pack was trained on (`demo_pack/drawing/world.py`). Three of nine backgrounds
# are plain, because a plain background shows the subject best and is what many real pictures of one thing have.
DEMO = Vocabulary(
    styles=(
        "a watercolor painting of",
        "a pencil sketch of",
        "an oil painting of",
        "a flat illustration of",
        "",
    ),
    backgrounds=(
        "",
        "on plain paper",
        "on white paper",
        "on a plain background",
        "on green grass",
        "in the snow",
        "under a blue sky",
        "at night",
        "on the beach",
    ),
    tones=(
        "a red",
        "an orange",
        "a yellow",
        "a green",
        "a blue",
        "a purple",
        "a pink",
        "a brown",
        "a black",
        "a white",
        "a grey",
    ),
    synonyms={
        "dog": ("puppy",),
        "cat": ("kitten",),
        "rabbit": ("bunny",),
        "flower": ("blossom",),
        "house": ("cottage",),
        "boat": ("sailboat",),
        "turtle": ("tortoise",),
        "mushroom": ("toadstool",),
        "balloon": ("hot-air balloon",),
    },
)
# For models of the size of Stable Diffusion: the domains of Shipard et al. and DomainNet, and common places. Without
# tones, because such a model knows which colours its subjects have.
GENERAL = Vocabulary(
    styles=(
        "a photo of",
        "a close-up photo of",
        "a painting of",
        "a watercolor painting of",
        "a pencil sketch of",
        "a flat illustration of",
        "clip art of",
        "a 3d render of",
    ),
    backgrounds=(
        "",
        "on a white background",
        "on a plain background",
        "on green grass",
        "in the snow",
        "under a blue sky",
        "at night",
        "on the beach",
        "in a forest",
        "in a street",
        "indoors",
    ),
)
_VOCABULARIES = {"demo": DEMO}


@dataclass(frozen=True, slots=True)
class PromptRecipe:
    """The templates of each class and the values of their variables, in the form that `DatasetCreate` takes.

    Attributes:
        prompts: Of each class, in the order of the classes; used in turn.
        variables: `style`, `background` and, where the vocabulary has tones, `tone`.
        guidance: Sampled for each image.
    """

    prompts: tuple[tuple[str, ...], ...]
    variables: dict[str, list[str]]
    guidance: GuidanceRange


def vocabulary_of(pack: str) -> Vocabulary:
    """Return the vocabulary of a model pack by the pack's name; packs without an own one have `GENERAL`."""
    return _VOCABULARIES.get(pack, GENERAL)


def make_recipe(class_names: Sequence[str], vocabulary: Vocabulary) -> PromptRecipe:
    """Build the templates: each word of a class once without and, where there are tones, once with a tone.

    Args:
        class_names: As the request has them; braces in a name stay literal.
        vocabulary: Of the model that will draw.
    """
    prompts = tuple(_templates(_words(name, vocabulary), vocabulary) for name in class_names)
    variables = {"style": list(vocabulary.styles), "background": list(vocabulary.backgrounds)}
    if vocabulary.tones:
        variables["tone"] = list(vocabulary.tones)
    return PromptRecipe(prompts, variables, GUIDANCE)


def _words(name: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    return (name, *vocabulary.synonyms.get(name_key(name), ()))


def _templates(words: Sequence[str], vocabulary: Vocabulary) -> tuple[str, ...]:
    templates = []
    for word in words:
        literal = word.replace("{", "{{").replace("}", "}}")
        templates.append(f"{{style}} {article(word)} {literal} {{background}}")
        if vocabulary.tones:
            templates.append(f"{{style}} {{tone}} {literal} {{background}}")
    return tuple(templates)


def article(words: str) -> str:
    """Return `a` or `an` by the first letter of what follows."""
    return "an" if words[:1].lower() in tuple("aeiou") else "a"
