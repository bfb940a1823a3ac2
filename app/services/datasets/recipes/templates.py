"""Prompt templates: text with `{variable}` placeholders, and the enumeration of the combinations of their values.

Does not use `str.format`, because a client's text may name a variable but no attribute, index or conversion.
Imports nothing of datasets. Pure functions of text; any thread may call them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Each alternative begins with a brace, so that `re` skips other characters without trying the pattern at each.
_TOKEN = re.compile(r"\{(?:\{|([a-z][a-z0-9_]{0,31})\})?|\}\}?")


class BadTemplate(ValueError):
    """A template contains an unpaired brace."""


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """The length of a text whose runs of white space become one space.

    Attributes:
        num_chars: Characters without white space at either end.
        begins_apart: Whether the text begins with white space.
        ends_apart: Whether the text ends with white space.
    """

    num_chars: int
    begins_apart: bool
    ends_apart: bool


def extent_of(text: str) -> Extent:
    """Return the extent of a text; the length of joined texts follows from their extents."""
    return Extent(len(" ".join(text.split())), text[:1].isspace(), text[-1:].isspace())


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        literals: The text around the variables, one more than `names`.
        names: The variables in order of appearance; one may appear twice.
    """

    literals: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables, each once, in order of first appearance."""
        return tuple(dict.fromkeys(self.names))

    def fill(self, values: Mapping[str, str]) -> str:
        """Replace each variable by its value; braces in a value stay literal.

        If there are variables, runs of white space become one space, because a value may be empty.
        """
        if not self.names:
            return self.literals[0]
        middle = (values[name] + literal for name, literal in zip(self.names, self.literals[1:], strict=True))
        return " ".join((self.literals[0] + "".join(middle)).split())

    def filled_length(self, extents: Mapping[str, Extent]) -> int:
        """Return the number of characters of `fill`'s result, from the extents of the values alone."""
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
    """Parse a template: `{name}` is a variable, `{{` and `}}` are literal braces.

    Raises:
        BadTemplate: Another brace appears.
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
    """Return the combination at a step of an enumeration that visits each combination of the product once.

    The enumeration is diagonal: after any number of steps, the counts of the first list's values differ by at most one,
    and those of the other lists by little. In the order of nested loops, 40 images over 10 x 10 values would use only
    four values of the first list.

    Args:
        sizes: Number of values of each list, each >= 1.
        step: Step of the enumeration, >= 0; it repeats after the product of the sizes.

    Returns:
        An index into each list.
    """
    if not sizes:
        return ()
    first, others = sizes[0], math.prod(sizes[1:])
    step %= first * others
    # Both indexes advance by one; where the pairs would repeat, the second index is shifted by one.
    shift = step // math.lcm(first, others)
    return (step % first, *combination(sizes[1:], step + shift))
