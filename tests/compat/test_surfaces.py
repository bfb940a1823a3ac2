"""The surfaces as a whole: switching them off, their contract, their scopes."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.access.caller import Scope
from app.api.access.scopes import COMPAT_NEEDS
from app.config import COMPAT_SURFACES, Settings
from app.main import create_app
from testing.fake_models import FakeModels
from testing.node import make_settings, serve
from tests.compat.conftest import Guarded

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.compat.json"
PREFIXES = {"openai": "/v1/", "a1111": "/sdapi/v1/", "huggingface": "/hf/"}


def document(compat: str = ",".join(COMPAT_SURFACES)) -> dict:
    found: dict = create_app(Settings(_env_file=None, compat=compat)).state.compat_document()
    return found


def test_the_committed_file_is_current_and_apart_from_the_contract() -> None:
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == document(), "run `make openapi`"
    native = create_app(Settings(_env_file=None)).openapi()["paths"]
    assert not any(path.startswith(tuple(PREFIXES.values())) for path in native)
    assert {path for _, path in COMPAT_NEEDS} == set(document()["paths"])


@pytest.mark.parametrize("names", ["openai", " a1111 , huggingface", ""])
def test_a_surface_can_be_switched_off(names: str) -> None:
    on = [prefix for name, prefix in PREFIXES.items() if name in names]
    assert set(document(names)["paths"]) == {path for path in document()["paths"] if path.startswith(tuple(on))}


def test_a_node_without_surfaces_answers_as_to_every_unknown_path(tmp_path: Path, sqlite_template: Path) -> None:
    (tmp_path / "foxhound.db").write_bytes(sqlite_template.read_bytes())
    settings = make_settings(tmp_path / "data", f"sqlite:///{tmp_path}/foxhound.db", compat="")
    with serve(settings, FakeModels()) as node:
        answer = node.http.get("/v1/models")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert node.http.get("/openapi.compat.json").json()["paths"] == {}
        assert node.http.put("/livez").headers["allow"] == "GET, HEAD"


def test_an_unknown_surface_is_refused() -> None:
    with pytest.raises(ValidationError, match="the surfaces are openai, a1111, huggingface"):
        Settings(_env_file=None, compat="openai,comfy")


def test_every_route_asks_for_its_scope(guarded: Guarded) -> None:
    http = guarded.node.http
    for (method, template), need in COMPAT_NEEDS.items():
        path = template.replace("{model_id}", "demo").replace("{task}", "text-to-image")
        assert (http.request(method, path).status_code == 401) is bool(need), path
        reader = http.request(method, path, headers={"Authorization": f"Bearer {guarded.reader}"})
        assert (reader.status_code == 403) is (bool(need) and Scope.READ not in need), path
        if need:
            assert "API key" in http.request(method, path).text
