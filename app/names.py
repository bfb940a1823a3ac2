"""Equality of names: one rule for classes, labels, models and other names that users choose.

The comparison ignores letter case, Unicode form (NFC, NFD, full-width and other compatibility forms), invisible
characters and the amount of white space. Similar letters of different scripts are different. Imports no resource; pure
functions, any thread.
"""

import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Sequence

# Unicode's Default_Ignorable_Code_Point beyond the format characters (category Cf): rendered as nothing.
_IGNORABLE = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}).union(
    range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0000, 0xE1000)
)
# Rendered as white space, but not white space in Unicode.
_BLANK = "\u2800"  # BRAILLE PATTERN BLANK


def name_key(name: str) -> str:
    """Return the key of a name: names are equal if their keys are; empty if a name has no visible character.

    NFKC and case folding until nothing changes, without invisible characters and with single spaces inside.
    """
    key, before = name, ""
    while key != before:
        before = key
        # NFD first: U+0345, a combining mark, folds to a letter, and the result must not depend on the marks' order.
        folded = unicodedata.normalize("NFD", key).casefold()
        visible = "".join(map(_seen, unicodedata.normalize("NFKC", folded)))
        key = " ".join(visible.split())
    return key


def is_like_an_id(name: str) -> bool:
    """Return whether a text has the form of an id; no name has it, so that a path may have either."""
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True


def is_visible(char: str) -> bool:
    """Return whether a character is visible by itself: no space, control, format or combining character."""
    return unicodedata.category(char)[0] not in "ZCM" and ord(char) not in _IGNORABLE and char != _BLANK


def find_name(name: str, among: Sequence[str]) -> int | None:
    """Return the index of a name; None if there is none. Identical text takes precedence over an equal name.

    Records from before this rule may contain several names that are equal by it.
    """
    if name in among:
        return among.index(name)
    key = name_key(name)
    return next((index for index, other in enumerate(among) if name_key(other) == key), None)


def equal_names(names: Sequence[str]) -> list[list[int]]:
    """Return the groups of at least two indexes whose names are equal, ordered by their first index."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        groups[name_key(name)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _seen(char: str) -> str:
    """Return the character for the comparison: a space for blanks, nothing for invisible characters."""
    if char.isspace() or char == _BLANK:
        return " "
    is_hidden = unicodedata.category(char) in ("Cf", "Cc") or ord(char) in _IGNORABLE
    return "" if is_hidden else char
