import pytest

from app.exporting.names import markdown, one_line


@pytest.mark.parametrize("sign", ["\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x00", "\t"])
def test_a_line_has_no_characters_that_end_it(sign: str) -> None:
    assert one_line(f"red{sign}fox") == "red fox"


def test_controls_of_direction_are_dropped() -> None:
    assert one_line("\u202egnp.exe\u202c\u2066x\u2069") == "gnp.exex"


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "[a](javascript:b)", "![x](y)", "a|b", "`code`", "**b**", "# h", "&lt;"]
)
def test_markdown_is_shown_literally(name: str) -> None:
    shown = markdown(name)
    assert "<" not in shown
    for sign in "[]()|`*#!":
        assert shown.count(sign) == shown.count(f"\\{sign}")


def test_text_from_right_to_left_is_isolated() -> None:
    assert markdown("ثعلب") == "\u2068ثعلب\u2069"
    assert markdown("fox") == "fox"
