"""What the documentation says is what the code does."""

import re
from pathlib import Path

import pytest

import app.errors
from app.config import Settings
from app.errors import AppError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
GUIDES = [
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "hostile-input.md",
    ROOT / "docs" / "demo-pack.md",
    ROOT / "examples" / "README.md",
]
PAGES = [ROOT / "README.md", *GUIDES, *DECISIONS]
ERRORS = [thing for thing in vars(app.errors).values() if isinstance(thing, type) and issubclass(thing, AppError)]


CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
ERROR_PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def table(text: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by their first cell, without head and rule."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_the_table_with_its_meaning_and_default(name: str) -> None:
    field = Settings.model_fields[name]
    meaning = (field.description or "").replace("|", r"\|")
    default = "not set" if field.default is None else f"`{field.default}`"
    assert table(CONFIGURATION).get(f"`FOXHOUND_{name.upper()}`") == [meaning, default]


def test_the_settings_table_names_no_setting_that_is_gone() -> None:
    assert set(table(CONFIGURATION)) == {f"`FOXHOUND_{name.upper()}`" for name in Settings.model_fields}


@pytest.mark.parametrize("error", [error for error in ERRORS if error is not AppError])
def test_every_error_stands_in_the_table_with_its_status_code_and_meaning(error: type[AppError]) -> None:
    meaning = (error.__doc__ or "").splitlines()[0]
    assert f"| {error.status} | `{error.default_code}` | {meaning} |" in ERROR_PAGE


def test_every_code_that_the_errors_section_names_is_given_by_the_code() -> None:
    tables = [line for line in ERROR_PAGE.splitlines() if line.startswith("| ")]
    named = {code for line in tables for code in re.findall(r"`([a-z_]+)`", line)}
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    assert named
    assert {code for code in named if f'"{code}"' not in source} == set()


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_record_has_context_decision_and_consequence(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.stem[:4]}: ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_inside_the_repository_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (path.parent / target).exists()] == []


def test_every_make_target_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = re.findall(r"(?:`|^|\s)make ([a-z-]+)(?=`|\s{2,}|$)", README, re.MULTILINE)
    assert {"run", "test"} <= set(commands) <= targets


def test_every_package_of_the_application_is_described() -> None:
    described = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (ROOT / "app").glob("*/__init__.py")}
    assert {package for package in packages if f"| `app/{package}/` |" not in described} == set()


HOSTILE = (ROOT / "docs" / "hostile-input.md").read_text(encoding="utf-8")
HOSTILE_ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", HOSTILE, re.MULTILINE)


def test_every_numbered_case_of_hostile_input_is_there_once_and_in_order() -> None:
    assert [int(number) for number, _, _ in HOSTILE_ROWS] == list(range(1, 95))


@pytest.mark.parametrize(("number", "held_by"), [(row[0], row[2]) for row in HOSTILE_ROWS])
def test_every_case_of_hostile_input_has_a_test_that_exists_or_a_reason(number: str, held_by: str) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", held_by)
    for path, name in named:
        source = ROOT / path
        assert source.is_file(), path
        assert re.search(rf"^(async )?def {name}\(", source.read_text(encoding="utf-8"), re.MULTILINE), name
    # A reason is a sentence.
    assert named or re.fullmatch(r"[A-Z].{20,}\.", held_by)
