"""What the documentation says is what the code does."""

import re
import runpy
from pathlib import Path

import pytest

import app.errors
from app.error_codes import ErrorCode
from app.errors import AppError

ROOT = Path(__file__).parents[2]
generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
GUIDES = [
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "hostile-input.md",
    ROOT / "docs" / "demo-pack.md",
    ROOT / "examples" / "README.md",
    ROOT / "CONTRIBUTING.md",
]
PAGES = [ROOT / "README.md", *GUIDES, *DECISIONS]
ERRORS = [thing for thing in vars(app.errors).values() if isinstance(thing, type) and issubclass(thing, AppError)]


@pytest.mark.parametrize("name", generate["PAGES"])
def test_a_generated_page_is_what_the_code_gives(name: str) -> None:
    """`make docs` writes it anew."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == generate["PAGES"][name]()


def test_every_error_code_of_the_code_is_in_the_enum_and_used() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app").rglob("*.py"))
    custom = set(re.findall(r'(?:PydanticCustomError|_one_fault)\(\s*"([a-z_0-9]+)"', source))
    assert custom <= set(ErrorCode)
    unused = {code for code in ErrorCode if f"ErrorCode.{code.name}" not in source and f'"{code}"' not in source}
    assert unused == set()
    assert {error.default_code for error in ERRORS} <= set(ErrorCode)


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


def test_every_file_that_the_contributing_guide_names_exists() -> None:
    named = re.findall(r"`([a-z_]+/[\w./]*)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


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
