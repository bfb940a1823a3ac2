"""The snippets of `docs/clients.md` work as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compat.conftest import Guarded

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
SNIPPETS = re.findall(r"^## (\S+)\n.*?^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)


def test_every_client_has_a_snippet() -> None:
    assert [name for name, _ in SNIPPETS] == ["openai", "huggingface_hub", "webuiapi"]


@pytest.mark.parametrize(("name", "code"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_the_snippet_runs(name: str, code: str, guarded: Guarded, tmp_path: Path) -> None:
    env = {
        "FOXHOUND_URL": str(guarded.node.http.base_url).rstrip("/"),
        "FOXHOUND_API_KEY": guarded.key,
        "PATH": "",
        "HOME": str(tmp_path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() in {"4", "42", "fox", "dog"}
    assert (tmp_path / "fox.png").read_bytes().startswith(b"\x89PNG"), name
