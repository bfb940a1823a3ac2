"""The console's pages over HTTP: open, small, under a strict policy, and switched off."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from app.access.caller import Scope
from app.image_spec import NoiseSchedulerName
from app.step_rows import SPACED_SCHEDULERS, TIMESTEP_SCHEDULERS
from app.ui.routes import CONTENT_SECURITY_POLICY, PAGES, read_assets, render_page
from testing.api_keys import new_key
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from tests.api.conftest import Serve

MAX_GZIPPED_BYTES = 150_000
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def guarded(tmp_path: Path, database_url: str) -> Iterator[Node]:
    """A node with a key; its own client has none."""
    new_key(database_url, "one", Scope.READ)
    with serve(make_settings(tmp_path / "data", database_url), FakeModels()) as node:
        yield node


def test_every_page_is_open_without_a_key_and_holds_its_policy(guarded: Node) -> None:
    assert guarded.http.get("/jobs").status_code == 401
    for path in PAGES:
        answer = guarded.http.get("/ui" + path.replace("{id}", "a%3Cb%3E"))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), path
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        known = guarded.http.get(f"/ui{path.replace('{id}', 'x')}", headers={"If-None-Match": answer.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
        assert guarded.http.head(f"/ui{path.replace('{id}', 'x')}").status_code == 200


def test_assets_are_asked_for_again_and_nothing_else_is_served(node: Node) -> None:
    for path, asset in read_assets().items():
        answer = node.http.get(f"/ui/static/{path}")
        assert (answer.status_code, answer.content) == (200, asset.body)
        assert answer.headers["cache-control"] == "no-cache"
        again = node.http.get(f"/ui/static/{path}", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
    for path in ("../routes.py", "..%2froutes.py", "js/../../routes.py", "", "js", "nothing.js"):
        assert node.http.get(f"/ui/static/{path}").status_code == 404
    assert node.http.get("/ui/").headers["location"] == "/ui"
    assert node.http.get("/ui/nothing").status_code == 404
    assert node.http.post("/ui").status_code == 405


def test_browsers_come_to_the_console_and_others_get_json(node: Node) -> None:
    answer = node.http.get("/", headers=BROWSER)
    assert (answer.status_code, answer.headers["location"], answer.headers["vary"]) == (307, "/ui", "Accept")
    assert node.http.get("/").json()["name"] == "Foxhound"


def test_the_console_can_be_switched_off(served: Serve) -> None:
    with served(ui=False) as node:
        assert node.http.get("/ui").status_code == 404
        assert node.http.get("/ui/static/console.css").status_code == 404
        page = node.http.get("/", headers=BROWSER)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_the_whole_console_is_small() -> None:
    sizes = {path: len(gzip.compress(asset.body)) for path, asset in read_assets().items()}
    sizes |= {name: len(gzip.compress(render_page(name).body)) for name in PAGES.values()}
    assert sum(sizes.values()) < MAX_GZIPPED_BYTES, sizes


@pytest.mark.parametrize("name", sorted(PAGES.values()))
def test_pages_have_no_script_or_style_inside_and_load_from_here_alone(name: str) -> None:
    page = render_page(name).body.decode()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)
    assert all(re.search(r'src="/ui/static/', tag) for tag in re.findall(r"<script[^>]*>", page))
    loaded = re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', page)
    assert loaded
    assert {path.removeprefix("/ui/static/") for path in loaded} <= set(read_assets())
    assert not re.findall(r'(?:src|href|action)="(?!/|#)', page)


def test_scripts_build_no_html_and_name_no_other_host() -> None:
    for path, asset in read_assets().items():
        text = asset.body.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path
        )
        hosts = set(re.findall(r"https?://[^\s'\"`/)]+", text)) - {"http://www.w3.org"}
        assert not hosts, path
        for module in re.findall(r"from '([^']+)'", text):
            assert f"js/{module.removeprefix('./')}" in read_assets(), (path, module)


@pytest.mark.parametrize(
    ("name", "taking"), [("OWN_SPACING", SPACED_SCHEDULERS), ("OWN_TIMESTEPS", TIMESTEP_SCHEDULERS)]
)
def test_the_page_knows_which_schedulers_take_no_other_timesteps(name: str, taking: frozenset[str]) -> None:
    text = read_assets()["js/more_settings.js"].body.decode()
    listed = re.search(rf"const {name} = \[(.*?)\];", text)
    assert listed is not None
    assert set(re.findall(r"'(\w+)'", listed.group(1))) == set(get_args(NoiseSchedulerName)) - taking
