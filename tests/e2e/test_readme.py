"""The README's commands work as they are written, pasted into a shell one after the other."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from testing.waiting import PATIENCE_S, wait_for
from tests.e2e.conftest import ROOT, ServedNode

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> str:
    """Return the shell block of the section "The flow in five commands"."""
    section = README.split("\n## The flow in five commands\n")[1].split("\n## ")[0]
    [block] = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(block)


def run(node: ServedNode, folder: Path) -> str:
    """Run the commands in a folder and return what they print; fails once neither they nor the node's jobs go on."""
    env = {**os.environ, "URL": str(node.http.base_url)}
    printed, errors = folder / "printed", folder / "errors"

    def state() -> tuple[int | None, int, list[tuple[str, int]]]:
        jobs = node.http.get("/jobs").json()["items"]
        return shell.poll(), printed.stat().st_size, [(job["status"], job["progress"]["done"]) for job in jobs]

    with printed.open("wb") as stdout, errors.open("wb") as stderr:
        shell = subprocess.Popen(["sh", "-e", "-c", commands()], env=env, cwd=folder, stdout=stdout, stderr=stderr)
    try:
        exit_code, _, _ = wait_for(
            state,
            lambda state: state[0] is not None,
            patience_s=3 * PATIENCE_S,  # nothing changes while the first image is drawn
            sleep=lambda _: time.sleep(0.5),  # leaves the cores to the node
        )
    finally:
        shell.kill()
        shell.wait()
    assert exit_code == 0, errors.read_text(encoding="utf-8")
    return printed.read_text(encoding="utf-8")


def test_the_flow_from_a_prompt_to_a_classified_fresh_fox(shared_live: ServedNode, tmp_path: Path) -> None:
    scored, classified = decoded(run(shared_live, tmp_path))
    scores = {score["label"]: score["probability"] for score in scored["scores"]}
    assert max(scores, key=lambda label: scores[label]) == "fox"
    assert classified["model"]["name"] == "fox-or-dog"
    assert classified["predictions"][0]["label"] == "fox"
    assert (tmp_path / "fox.png").read_bytes() != (tmp_path / "fresh-fox.png").read_bytes()


def decoded(text: str) -> list[dict[str, Any]]:
    """Split what the commands printed into its JSON answers, which end with no line break."""
    found, position = [], 0
    while position < len(text.rstrip()):
        answer, position = json.JSONDecoder().raw_decode(text, position)
        found.append(answer)
    return found
