"""The types of `foxhound_client` are those of docs/openapi.json, and the package needs httpx and pydantic alone."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from foxhound_client import errors, pictures

ROOT = Path(__file__).parents[3]
DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
generator = runpy.run_path(str(ROOT / "clients" / "python.py"))


@pytest.mark.parametrize(("name", "text"), [("models.py", "models_text"), ("requests.py", "requests_text")])
def test_the_types_are_what_the_contract_gives(name: str, text: str) -> None:
    """`python clients/python.py` writes them anew."""
    assert (ROOT / "foxhound_client" / name).read_text(encoding="utf-8") == generator[text](DOCUMENT)


def test_what_is_written_by_hand_agrees_with_the_contract() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert set(errors.Problem.model_fields) == set(schemas["Problem"]["properties"])
    assert schemas["UploadImagesForm"]["properties"]["files"]["maxItems"] == pictures.MAX_FILES


def test_the_client_imports_nothing_but_httpx_and_pydantic() -> None:
    script = "import foxhound_client, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    told = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(told.stdout.split())
    assert {"httpx", "pydantic", "foxhound_client"} <= loaded
    assert not loaded & {"app", "torch", "numpy", "sqlalchemy", "fastapi", "starlette", "typer", "PIL"}
