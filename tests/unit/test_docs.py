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


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_record_has_a_status_and_at_most_500_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"Status: (accepted|(amended|superseded) by \d{4}( and \d{4})*)", text.splitlines()[2])
    assert len(text.split()) <= 500


def test_the_index_of_the_decision_records_has_their_titles_and_status() -> None:
    index = table((ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8"))
    records = {path: path.read_text(encoding="utf-8").splitlines() for path in DECISIONS}
    assert index == {
        f"[{lines[0].removeprefix('# ')}]({path.name})": [lines[2].removeprefix("Status: ")]
        for path, lines in records.items()
    }


# Words of a private language, as patterns of whole words, each with what a reader expects instead.
DENIED = {
    r"wander(s|ed|ing)?": "a measurement varies",
    r"remakes?|remaking|remade": "optimize, or generate again",
    r"doom(s|ed)?": "mark as failing",
    r"leftovers?": "recovery; files without a record",
    r"anew": "again",
    r"any company|in company": "in any batch; batch-invariant",
    r"patience": "wait policy, timeout or time budget",
    r"strangers?": "unrecorded files",
    r"workshop": "worker context",
    r"wish(es|ed)?": "a request; software wants nothing",
    r"told|untold": "report, list, log or answer",
    r"taught|teach(es)?": "train",
    r"beats?": "heartbeat",
    r"rests|rested|resting": "pause",
    r"oblong": "non-square",
    r"by lot": "at random",
    r"amid": "during",
    r"mend(s|ed)?": "fix, repair or restore",
    r"settles?|settled": "resolve, decide or finish",
    r"somebody|whoever": "name who: a client, an operator, a worker",
    r"without rights": "unprivileged",
    r"gives? back|given back": "requeue",
}
# style.md quotes the words in its examples; the decision records keep the names of their files.
PROSE = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "decisions").glob("*.md")), ROOT / "README.md"]
ALLOWED = {("docs/style.md", word) for word in DENIED} | {("README.md", r"any company|in company")}


def prose(text: str) -> str:
    """A page as one line, without fenced code, code spans and the targets of links."""
    text = re.sub(r"^```.*?^```", " ", text, flags=re.MULTILINE | re.DOTALL)
    return " ".join(re.sub(r"(?<=\])\([^)]*\)|`[^`\n]+`", " ", text).split())


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_documents_use_the_words_of_the_field(path: Path) -> None:
    text = prose(path.read_text(encoding="utf-8"))
    page = str(path.relative_to(ROOT))
    denied = {word: instead for word, instead in DENIED.items() if (page, word) not in ALLOWED}
    assert {word: instead for word, instead in denied.items() if re.search(rf"\b({word})\b", text, re.IGNORECASE)} == {}


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
