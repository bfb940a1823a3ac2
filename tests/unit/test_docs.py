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


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_record_has_a_status_and_at_most_500_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"Status: (accepted|(amended|superseded) by \d{4}( and \d{4})*)", text.splitlines()[2])
    assert len(text.split()) <= 500


def test_the_index_of_the_decision_records_has_their_titles_and_status() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    rows = [line for line in index.splitlines() if line.startswith("| [")]
    records = {path: path.read_text(encoding="utf-8").splitlines() for path in DECISIONS}
    assert rows == [
        f"| [{lines[0].removeprefix('# ')}]({path.name}) | {lines[2].removeprefix('Status: ')} |"
        for path, lines in records.items()
    ]


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
ALLOWED = {("docs/style.md", word) for word in DENIED}


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


def test_every_file_that_the_contributing_guide_names_exists() -> None:
    named = re.findall(r"`([a-z_]+/[\w./]*)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_module_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    basenames = {path.name for path in (ROOT / "app").rglob("*.py")}
    assert named
    assert [name for name in named if not (ROOT / name).exists() and name not in basenames] == []


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
    assert [int(number) for number, _, _ in HOSTILE_ROWS] == list(range(1, 105))


@pytest.mark.parametrize(("number", "held_by"), [(row[0], row[2]) for row in HOSTILE_ROWS])
def test_every_case_of_hostile_input_has_a_test_that_exists_or_a_reason(number: str, held_by: str) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)::(\w+)", held_by)
    for path, name in named:
        source = ROOT / path
        assert source.is_file(), path
        assert re.search(rf"^(async )?def {name}\(", source.read_text(encoding="utf-8"), re.MULTILINE), name
    # A reason is a sentence.
    assert named or re.fullmatch(r"[A-Z].{20,}\.", held_by)
