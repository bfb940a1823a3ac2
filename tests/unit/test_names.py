"""The one rule for names: what is the same name, what is not, and what is none."""

import unicodedata

import pytest

from app.names import equal_names, find_name, name_key
from app.storage.class_folders import class_folders

SAME_AS_FOX = {
    "case": "FoX",
    "space behind": "fox ",
    "space before": "\tfox",
    "no-break space": "fox\u00a0",
    "ideographic space": "\u3000fox",
    "braille blank": "fox\u2800",
    "zero-width space": "f\u200box",
    "zero-width joiner": "fo\u200dx",
    "word joiner": "fox\u2060",
    "byte order mark": "\ufefffox",
    "soft hyphen": "fo\u00adx",
    "right-to-left mark": "fox\u200f",
    "variation selector": "fox\ufe0f",
    "grapheme joiner": "f\u034fox",
    "Hangul filler": "fox\u3164",
    "tag character": "fox\U000e0066",
    "full width": "\uff46\uff4f\uff58",
    "mathematical bold": "\U0001d41f\U0001d428\U0001d431",
    "bell": "fox\u0007",
}


@pytest.mark.parametrize("name", SAME_AS_FOX.values(), ids=SAME_AS_FOX.keys())
def test_names_that_look_alike_are_one(name: str) -> None:
    assert name_key(name) == "fox"
    assert find_name(name, ["dog", "fox"]) == 1
    assert find_name("fox", ["dog", name]) == 1
    with pytest.raises(ValueError, match="equal"):
        class_folders(["fox", name])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Füchse", unicodedata.normalize("NFD", "füchse")),
        ("Straße", "STRASSE"),
        ("red fox", "red\u00a0 \tfox"),
        ("\u0345\u0301a", "\u0301\u0345a"),
        ("ﬁeld", "field"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("\u212bngström", "ångström"),
    ],
)
def test_pairs_that_are_one_name(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)
    assert equal_names(["x", one, "y", other]) == [[1, 3]]


@pytest.mark.parametrize("other", ["redfox", "red-fox", "red foxes", "r\u0435d fox", "réd fox", "red fox!"])
def test_names_that_differ_stay_apart(other: str) -> None:
    assert find_name(other, ["red fox"]) is None
    assert len(class_folders(["red fox", other])) == 2


@pytest.mark.parametrize("name", ["", " ", "\u200b", "\u00ad\u3164", "\u2800", "\U000e0100", "\x00"])
def test_what_shows_nothing_has_no_key(name: str) -> None:
    assert name_key(name) == ""


def test_a_key_is_its_own_key() -> None:
    code_points = [*range(0x3400), *range(0xF900, 0x10000), *range(0x1D400, 0x1D800)]
    keys = (name_key(f"a {chr(code_point)}b") for code_point in code_points)
    assert [key for key in keys if name_key(key) != key] == []


def test_the_very_same_text_goes_first() -> None:
    assert find_name("Fox", ["fox", "FOX", "Fox"]) == 2
    assert find_name("fOX", ["fox", "FOX", "Fox"]) == 0


def test_folders_are_what_they_were() -> None:
    names = ["Fox ", "Füchse", "fox\u200bes", "ＤＯＧ", "狐", "a/b"]
    assert class_folders(names) == ["fox", "fuchse", "foxes", "dog", "class-6db045ad", "a-b"]
