"""Class names become safe and unique folder names that later classes do not change."""

import random
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.names import name_key
from app.storage.class_folders import class_folders


@pytest.mark.parametrize(
    ("name", "folder_name"),
    [
        ("fox", "fox"),
        ("Golden Retriever", "golden-retriever"),
        ("Füchse", "fuchse"),
        ("Straße", "strasse"),
        ("a/b", "a-b"),
        ("a\\b", "a-b"),
        ("v1.5_x", "v1.5_x"),
        ("../../etc", "etc"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("trailing. ", "trailing"),
        ("$(reboot)", "reboot"),
        ("CON", "class-con"),
        ("nul.txt", "class-nul.txt"),
        ("Com1", "class-com1"),
        ("x" * 300, "x" * 48),
        ("a\0b\nc", "a-b-c"),
    ],
)
def test_a_class_name_becomes_a_safe_folder_name(name: str, folder_name: str) -> None:
    assert class_folders([name]) == [folder_name]


@pytest.mark.parametrize("name", ["", "..", ".", "~", "狐", "🦊", "   ", "---", "\udc80"])
def test_a_name_without_safe_letters_gets_a_hash(name: str) -> None:
    assert re.fullmatch(r"class-[0-9a-f]{8}", class_folders([name])[0])


def test_names_that_would_share_a_folder_are_kept_apart() -> None:
    names = ["red fox", "red-fox", "Red  Fox!", "狐", "犬", "x" * 60, "x" * 61, "con", "class-con"]
    folders = class_folders(names)
    assert len(set(folders)) == len(names)
    assert folders[0] == "red-fox"
    assert re.fullmatch(r"red-fox-[0-9a-f]{8}", folders[1])


def test_a_name_cannot_take_the_folder_that_another_is_given() -> None:
    given_to_second = class_folders(["red fox", "red-fox"])[1]
    folders = class_folders(["red fox", given_to_second, "red-fox"])
    assert len(set(folders)) == 3


@pytest.mark.parametrize(
    "names", [("fox", "fox"), ("fox", "Fox"), ("Füchse", unicodedata.normalize("NFD", "FÜCHSE")), ("Straße", "STRASSE")]
)
def test_names_that_are_the_same_text_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="equal"):
        class_folders(["cat", *names])


@given(
    st.lists(
        st.text(max_size=70) | st.sampled_from(["con", "a b", "a-b", "A.b", "..", "x" * 48, "x" * 49]), max_size=12
    )
)
def test_folders_are_safe_unequal_and_unchanged_by_later_names(names: list[str]) -> None:
    distinct: dict[str, str] = {}
    for name in names:
        distinct.setdefault(name_key(name), name)
    folders = class_folders(list(distinct.values()))
    assert len({folder.casefold() for folder in folders}) == len(distinct)
    for folder in folders:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", folder)
        assert not folder.endswith(".")
        assert folder.split(".")[0] not in {"con", "nul", "prn", "aux", "com1", "lpt9"}
    cut = random.Random(0).randint(0, len(distinct))
    assert class_folders(list(distinct.values())[:cut]) == folders[:cut]
