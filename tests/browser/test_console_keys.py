"""API keys and quotas on the console's page of the node: for keys with the scope admin, hidden from others."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from app.access.caller import Scope
from app.access.keys import list_keys
from app.db.session import Database
from testing.api_keys import new_key
from testing.chromium import Tab
from testing.node import Node
from testing.waiting import wait_until
from tests.browser.hands import Console

pytestmark = pytest.mark.browser


@pytest.fixture
def console(tab: Tab, node: Node) -> Iterator[Console]:
    console = Console(tab, node)
    yield console
    console.check()


def sign_in(console: Console, key: str) -> None:
    page = console.open("/ui/sign-in?next=/ui/node")
    page.locator("[name=key]:not([disabled])").fill(key)
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/node")
    page.locator("#models table").wait_for()


def test_a_key_is_created_shown_once_limited_and_revoked(console: Console, node: Node, database_url: str) -> None:
    page = console.open("/ui/node")
    page.locator("#keys").get_by_text("foxhound keys create NAME --scope admin").wait_for()
    admin = new_key(database_url, "admin", Scope.ADMIN)
    wait_until(lambda: node.http.get("/jobs").status_code == 401)
    sign_in(console, admin.key)
    page.locator("#keys tbody tr").wait_for()
    assert page.locator("#keys tbody td").first.inner_text() == "admin"
    form = page.get_by_role("form", name="Create a key")
    form.locator("[name=name]").fill("not a name")
    form.get_by_role("button", name="Create the key").press("Enter")
    form.locator("[name=name][aria-invalid=true]").wait_for()
    form.locator("[name=name]").fill("alice")
    form.locator("[name=days]").fill("30")
    form.locator("[name=scopes][value=train]").check()
    form.get_by_role("button", name="Create the key").press("Enter")
    page.locator("#new-key").wait_for()
    secret = page.locator("#new-key").inner_text()
    assert secret.startswith("fxh_")
    page.get_by_role("button", name="I have it").click()
    console.until("document.querySelectorAll('#keys tbody tr').length === 2")
    console.until("!document.querySelector('#new-key')")
    assert secret not in page.content()
    assert "generate, read, train" in page.locator("#keys tbody tr").first.inner_text()

    page.get_by_role("button", name="Quotas of alice").press("Enter")
    quotas = page.get_by_role("dialog")
    quotas.locator("[name=pixel_steps_per_day]").fill("5000")
    quotas.get_by_role("button", name="Save").press("Enter")
    quotas.wait_for(state="detached")
    page.get_by_role("button", name="Quotas of alice").click()
    quotas.get_by_text("0 pixel-steps, of 5,000").wait_for()
    page.keyboard.press("Escape")
    quotas.wait_for(state="detached")

    page.get_by_role("button", name="Revoke admin").click()
    quotas.get_by_role("button", name="Revoke").click()
    quotas.get_by_text("No other key has the scope admin").wait_for()
    quotas.get_by_role("button", name="Keep").click()
    page.get_by_role("button", name="Revoke alice").click()
    quotas.get_by_role("button", name="Revoke").click()
    page.locator("#keys .badge.revoked").wait_for()
    with closing(Database(database_url)) as db:
        assert [record.name for record in list_keys(db) if record.revoked_at] == ["alice"]


def test_keys_are_hidden_from_a_key_without_the_scope(console: Console, node: Node, database_url: str) -> None:
    new_key(database_url, "admin", Scope.ADMIN)
    reader = new_key(database_url, "reader", Scope.READ)
    wait_until(lambda: node.http.get("/jobs").status_code == 401)
    sign_in(console, reader.key)
    page = console.page
    page.get_by_text("The figures of the engine need a key with the scope admin.").wait_for()
    page.wait_for_load_state("networkidle")
    assert page.locator("#keys-card").is_hidden()
    assert page.locator("#notice").is_hidden()  # looking for keys is no refusal
