"""When two names are the same name: the one rule for classes, labels and whatever else people call things.

Names that look alike are one: letter case, Unicode form (NFC, NFD, full-width and other compatibility forms), invisible
characters and the amount of white space do not count. Look-alike letters of different scripts do. Knows no resource;
pure functions, any thread.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

# Unicode's Default_Ignorable_Code_Point beyond the format characters (category Cf): drawn as nothing.
_IGNORABLE = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0}).union(
    range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0000, 0xE1000)
)
# Not white space to Unicode, yet drawn as it.
_BLANK = "\u2800"  # BRAILLE PATTERN BLANK


def name_key(name: str) -> str:
    """Return what a name is known by: equal keys, equal names. Empty where nothing of a name can be seen.

    NFKC and case folding until nothing changes any more, without invisible characters and with single spaces inside.
    """
    key, before = name, ""
    while key != before:
        before = key
        # NFD first: U+0345, a combining mark, folds to a letter, which must not depend on the marks' order.
        folded = unicodedata.normalize("NFD", key).casefold()
        visible = "".join(map(_seen, unicodedata.normalize("NFKC", folded)))
        key = " ".join(visible.split())
    return key


def is_visible(char: str) -> bool:
    """Tell whether a character shows something by itself: no space, control, format or combining character."""
    return unicodedata.category(char)[0] not in "ZCM" and ord(char) not in _IGNORABLE and char != _BLANK


def find_name(name: str, among: Sequence[str]) -> int | None:
    """Return the index of a name; None if it is not there. The very same text goes before one that is only equal.

    Records from before this rule may hold several names that are equal by it.
    """
    if name in among:
        return among.index(name)
    key = name_key(name)
    return next((index for index, other in enumerate(among) if name_key(other) == key), None)


def equal_names(names: Sequence[str]) -> list[list[int]]:
    """Return the groups of indexes, two at least, whose names are the same, in the order of their first ones."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        groups[name_key(name)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _seen(char: str) -> str:
    """Return a character as it counts: blanks as a space, what is never drawn as nothing."""
    if char.isspace() or char == _BLANK:
        return " "
    is_hidden = unicodedata.category(char) in ("Cf", "Cc") or ord(char) in _IGNORABLE
    return "" if is_hidden else char
