"""Prompt templates: text with `{variable}` places, and the walk through all that can stand there.

Never `str.format`: a client's text can name a variable and nothing else, no attribute, index or conversion.
Pure functions of text; knows nothing of datasets.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]{0,31})\}|[{}]")


class BadTemplate(ValueError):
    """A brace stands alone."""


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """How much room a text takes where runs of white space become one space.

    Attributes:
        num_chars: Characters without white space at either end.
        begins_apart: Whether white space comes first.
        ends_apart: Whether white space comes last.
    """

    num_chars: int
    begins_apart: bool
    ends_apart: bool


def extent_of(text: str) -> Extent:
    """Measure a text once, so that texts can be added up without being put together."""
    return Extent(len(" ".join(text.split())), text[:1].isspace(), text[-1:].isspace())


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        literals: The text around the variables, one more than `names`.
        names: The variables in the order in which they stand; one may stand twice.
    """

    literals: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables, each once, in the order in which they first stand."""
        return tuple(dict.fromkeys(self.names))

    def fill(self, values: Mapping[str, str]) -> str:
        """Put a value in each variable's place, as it is: braces in a value are no variables.

        Where there are variables, runs of white space become one space, since a value may be empty.
        """
        if not self.names:
            return self.literals[0]
        middle = (values[name] + literal for name, literal in zip(self.names, self.literals[1:], strict=True))
        return " ".join((self.literals[0] + "".join(middle)).split())

    def filled_length(self, extents: Mapping[str, Extent]) -> int:
        """Return how many characters `fill` would give, from the extents of the values alone."""
        if not self.names:
            return len(self.literals[0])
        parts = [extent_of(self.literals[0])]
        for name, literal in zip(self.names, self.literals[1:], strict=True):
            parts.append(extents[name])
            if literal:
                parts.append(extent_of(literal))
        total, is_apart = 0, False
        for part in parts:
            is_apart = is_apart or part.begins_apart
            if part.num_chars:
                total += part.num_chars + (is_apart and total > 0)
                is_apart = part.ends_apart
        return total


def parse_template(text: str) -> Template:
    """Read a template: `{name}` is a variable, `{{` and `}}` are braces.

    Raises:
        BadTemplate: A brace is none of these.
    """
    literals, names, end = [""], [], 0
    for token in _TOKEN.finditer(text):
        literals[-1] += text[end : token.start()]
        end = token.end()
        if token[1] is not None:
            names.append(token[1])
            literals.append("")
        elif len(token[0]) == 2:
            literals[-1] += token[0][0]
        else:
            raise BadTemplate
    literals[-1] += text[end:]
    return Template(tuple(literals), tuple(names))


def combination(sizes: Sequence[int], step: int) -> tuple[int, ...]:
    """Return the combination at a step of a walk that meets each of the product's combinations once.

    The walk goes diagonally: after any number of steps the first list's values have been met equally often but for
    one, and the others' nearly so. In the order of nested loops, 40 images over 10 x 10 values would meet four of
    the first list's values and none of the rest.

    Args:
        sizes: How many values each list has, each >= 1.
        step: 0 <= step; the walk begins anew after the product of the sizes.

    Returns:
        An index into each list.
    """
    if not sizes:
        return ()
    first, others = sizes[0], math.prod(sizes[1:])
    step %= first * others
    # Both indexes go on by one; where they would meet the same pairs again, the second is shifted by one.
    shift = step // math.lcm(first, others)
    return (step % first, *combination(sizes[1:], step + shift))
