"""The commands that use a running service, as a person and as a script use them: in a pipe and on a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app import __version__
from app.cli.main import app
from testing.node import Node
from testing.uploads import CLASSES, create_empty, picture, upload
from testing.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
FOXHOUND = [sys.executable, "-m", "app.cli.main"]
KEPT = {name: value for name, value in os.environ.items() if not name.startswith("FOXHOUND_")}


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """SQLite alone: these commands see no database."""
    path = tmp_path / "foxhound.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def foxhound(node: Node | None, *args: str, body: str = "") -> Result:
    """Run a command in this process without waiting."""
    env = {} if node is None else {"FOXHOUND_URL": str(node.http.base_url)}
    result = CliRunner(env=env).invoke(app, list(args), input=body, obj=lambda _: None)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def environment(tmp_path: Path, url: object = "http://127.0.0.1:9") -> dict[str, str]:
    return {**KEPT, "PYTHONPATH": str(ROOT), "FOXHOUND_URL": str(url), "FOXHOUND_DATA_DIR": str(tmp_path / "data")}


def process(tmp_path: Path, *args: str, url: object = "http://127.0.0.1:9") -> "subprocess.CompletedProcess[str]":
    """Run a command as a process in a pipe."""
    env = environment(tmp_path, url)
    return subprocess.run([*FOXHOUND, *args], env=env, capture_output=True, text=True, timeout=PATIENCE_S)


def test_images_are_written_to_files_and_told(node: Node, tmp_path: Path) -> None:
    told = foxhound(node, "generate", "a red fox", "--seed", "7", "--steps", "2", "-o", "fox.png")
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines()[-1] == "fox.png: seed 7, 64 x 64 pixels"
    assert Path("fox.png").read_bytes().startswith(b"\x89PNG")
    many = foxhound(node, "generate", "a fox", "-n", "2", "--steps", "1", "-o", "many.jpg", "--json")
    assert json.loads(many.stdout)["files"] == ["many-1.jpg", "many-2.jpg"]
    assert Path("many-2.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert [path.name for path in Path().iterdir() if ".part" in path.name] == []
    refused = foxhound(node, "generate", "", "--steps", "1")
    assert (refused.exit_code, refused.stdout, "#/prompt" in refused.stderr) == (1, "", True)
    assert foxhound(node, "generate", "a fox", "-o", "nowhere/fox.png").exit_code == 2


def test_images_are_scored_and_classified(node: Node) -> None:
    for number in range(2):
        Path(f"{number}.png").write_bytes(picture(number))
    scored = foxhound(node, "score", "0.png", "fox", "a long label")
    assert [line.split("\t")[1] for line in scored.stdout.splitlines()] == ["a long label", "fox"]
    assert len(json.loads(foxhound(node, "score", "0.png", "fox", "dog", "--json").stdout)["scores"]) == 2
    assert len(foxhound(node, "classify", "0.png", "--top-k", "2").stdout.splitlines()) == 2
    both = foxhound(node, "classify", "0.png", "1.png", "--top-k", "1")
    assert [line.split("\t")[0] for line in both.stdout.splitlines()] == ["0.png", "1.png"]
    assert len(json.loads(foxhound(node, "classify", "0.png", "1.png", "--json").stdout)["results"]) == 2
    assert foxhound(node, "classify", "none.png").exit_code == 2


def test_a_dataset_is_filled_shown_and_deleted(node: Node) -> None:
    create_empty(node.http, "mine")
    for number in range(3):
        Path(f"{number}.png").write_bytes(picture(number))
    upload = ("dataset", "upload", "mine", "0.png", "1.png", "--class", CLASSES[0])
    assert foxhound(node, *upload).stdout.splitlines()[-1] == "2 files were added, 0 refused."
    again = foxhound(node, *upload, "--json")
    assert (again.exit_code, json.loads(again.stdout)["num_refused"]) == (0, 2)
    Path("2.png").write_bytes(b"no image")
    bad = foxhound(node, "dataset", "upload", "mine", "2.png", "--class", CLASSES[0])
    assert (bad.exit_code, "2.png: " in bad.stderr) == (1, True)
    assert foxhound(node, "dataset", "show", "mine").stdout.startswith("mine is ready, 2 of 2 images")
    written = json.loads(foxhound(node, "dataset", "export", "mine", "-o", "mine.zip", "--json").stdout)
    assert written == {"path": "mine.zip", "num_bytes": Path("mine.zip").stat().st_size}
    assert foxhound(node, "dataset", "delete", "mine").stdout == "mine is deleted.\n"
    gone = foxhound(node, "dataset", "show", "mine")
    assert (gone.exit_code, gone.stderr.count("\n"), "(404 " in gone.stderr) == (1, 1, True)


def test_a_model_is_trained_by_a_job_that_jobs_shows(node: Node) -> None:
    made = create_empty(node.http, "mine")
    for label in CLASSES:
        for number in range(2):
            Path("0.png").write_bytes(picture(CLASSES.index(label) * 10 + number))
            foxhound(node, "dataset", "upload", "mine", "0.png", "--class", label)
    started = foxhound(node, "train", "mine", "--name", "m", "--epochs", "1", "--no-wait", "--json")
    assert started.exit_code == 0, started.output
    job = json.loads(started.stdout)
    assert (job["dataset_id"], job["spec"]["name"], job["spec"]["epochs"]) == (made["id"], "m", 1)
    listed = foxhound(node, "jobs", "list", "--kind", "train")
    assert [line.split("\t")[:3] for line in listed.stdout.splitlines()[1:]] == [[job["id"], "train", "queued"]]
    assert "is paused" in foxhound(node, "jobs", "pause", job["id"]).stdout
    assert json.loads(foxhound(node, "jobs", "resume", job["id"], "--json").stdout)["status"] == "queued"
    assert "is cancelled" in foxhound(node, "jobs", "cancel", job["id"]).stdout
    waited = foxhound(node, "jobs", "wait", job["id"])
    assert (waited.exit_code, waited.stdout.startswith("cancelled: ")) == (1, True)
    retried = [json.loads(foxhound(node, "jobs", "retry", job["id"], "--json").stdout)["id"] for _ in range(2)]
    assert retried[0] == retried[1] != job["id"]
    assert f"The job {retried[0]} is queued" in foxhound(node, "jobs", "show", retried[0]).stdout
    assert json.loads(foxhound(node, "models", "list", "--json").stdout) == []
    for command in (("show", "none"), ("card", "none"), ("export", "none", "-o", "x.zip")):
        assert foxhound(node, "models", *command).exit_code in (1, 2)


@pytest.mark.parametrize(
    "args",
    [
        ("generate", "a fox"),
        ("train", "d"),
        ("dataset", "list", "--json"),
        ("models", "list"),
        ("jobs", "wait", "j"),
        ("dataset", "export", "d", "-o", "x.zip"),
    ],
)
def test_an_unreachable_server_is_one_line_at_once(args: tuple[str, ...]) -> None:
    gone = foxhound(None, *args, "--server", "http://127.0.0.1:9")
    assert (gone.exit_code, gone.stdout, gone.stderr.count("\n")) == (1, "", 1)
    assert gone.stderr.startswith("No answer from http://127.0.0.1:9: ")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(flag: str) -> None:
    def commands(*path: str) -> Iterator[tuple[str, ...]]:
        yield path
        if path in ((), ("dataset",), ("models",), ("jobs",), ("keys",), ("storage",)):
            text = foxhound(None, *path, flag).stdout
            lines = [line.strip("│ ").split(" ")[0] for line in text.splitlines() if line.startswith("│ ")]
            for name in filter(str.isalpha, lines):
                if name.islower() and len(path) < 2:
                    yield from commands(*path, name) if foxhound(None, *path, name, flag).exit_code == 0 else ()

    found = set(commands())
    assert {("generate",), ("jobs", "wait"), ("models", "packs"), ("keys", "create"), ("storage", "report")} <= found


# As processes.


def test_the_version_is_told_without_loading_what_it_does_not_need(tmp_path: Path) -> None:
    script = "import sys; from app.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", script, "--version"]
    told = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert told.stdout == f"foxhound {__version__}\n"
    loaded = {name.partition(".")[0] for name in told.stderr.split()}
    assert not loaded & {
        "torch",
        "numpy",
        "sqlalchemy",
        "fastapi",
        "uvicorn",
        "diffusers",
        "transformers",
        "PIL",
        "dbos",
    }


def test_failures_of_a_process_are_one_line_and_no_traceback(node: Node, tmp_path: Path) -> None:
    refused = process(tmp_path, "dataset", "list", "--json")
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    nowhere = process(tmp_path, "openapi", "/nowhere/openapi.json")
    assert (nowhere.returncode, nowhere.stderr) == (2, "The folder /nowhere does not exist.\n")
    usage = process(tmp_path, "dataset", "list", "--limit", "many")
    assert (usage.returncode, "Traceback" in usage.stderr) == (2, False)


@pytest.mark.parametrize("sink", ["/dev/full", "closed pipe"])
def test_results_that_cannot_be_written_end_the_command_without_a_traceback(
    node: Node, tmp_path: Path, sink: str
) -> None:
    create_empty(node.http, "mine")
    if sink == "/dev/full":
        out = os.open(sink, os.O_WRONLY)
    else:
        reader, out = os.pipe()
        os.close(reader)
    command = [*FOXHOUND, "dataset", "list"]
    env = environment(tmp_path, node.http.base_url)
    ended = subprocess.run(command, env=env, stdout=out, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S)
    os.close(out)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert ("No space left on device" in ended.stderr) == (sink == "/dev/full")


def test_a_disk_that_fills_up_in_a_download_leaves_the_old_file_and_what_has_come(node: Node, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: a write stores a part and then fails."""
    made = create_empty(node.http, "mine")
    upload(node.http, made["id"], [picture(number) for number in range(20)])
    Path("mine.zip").write_bytes(b"the old file")
    export = [*FOXHOUND, "dataset", "export", "mine", "-o", "mine.zip"]
    limited = ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh", *export]  # 4 blocks of 512 bytes
    env = environment(tmp_path, node.http.base_url) | {"PYTHONDONTWRITEBYTECODE": "1"}
    full = subprocess.run(limited, env=env, capture_output=True, text=True, timeout=PATIENCE_S)
    whole = node.http.get(f"/datasets/{made['id']}/archive.zip").content
    assert len(whole) > 4_096
    assert (full.returncode, full.stdout, "File too large" in full.stderr) == (1, "", True), full.stderr
    assert "Traceback" not in full.stderr
    assert Path("mine.zip").read_bytes() == b"the old file"
    part = Path("mine.zip.part").read_bytes()
    assert 0 < len(part) <= 4_096
    assert whole.startswith(part)
    assert foxhound(node, "dataset", "export", "mine", "-o", "mine.zip").exit_code == 0
    assert Path("mine.zip").read_bytes() == whole
    assert not Path("mine.zip.part").exists()


def _heed_interrupts() -> None:
    """Undo what a shell does to commands in its background, which ignore SIGINT, and so do their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_on_a_terminal_leaves_the_job_and_says_how_to_return(node: Node, tmp_path: Path) -> None:
    body = {"name": "d", "classes": [{"name": "fox", "prompts": ["a"]}, {"name": "dog", "prompts": ["b"]}]}
    job_id = node.http.post("/datasets", json=body).json()["job_id"]
    master, terminal = pty.openpty()
    env = {**environment(tmp_path, node.http.base_url), "TERM": "xterm", "COLUMNS": "120"}
    command = [*FOXHOUND, "jobs", "wait", job_id]
    shown = b""
    with subprocess.Popen(
        command, env=env, stdin=terminal, stdout=terminal, stderr=terminal, preexec_fn=_heed_interrupts
    ) as running:
        os.close(terminal)
        while b"0 of 100 images" not in shown:  # the bar is there
            assert select.select([master], [], [], PATIENCE_S)[0]
            shown += os.read(master, 65_536)
        running.send_signal(signal.SIGINT)
        try:
            while select.select([master], [], [], PATIENCE_S)[0]:
                shown += os.read(master, 65_536)
        except OSError:  # the other end is closed
            pass
        assert running.wait(PATIENCE_S) == 130
    os.close(master)
    text = shown.decode()
    assert "Interrupted. The job continues in the service." in text
    assert f"foxhound jobs wait {job_id} --server" in text.replace("\r\n", "")
    assert "Traceback" not in text
    assert node.http.get(f"/jobs/{job_id}").json()["status"] == "queued"
