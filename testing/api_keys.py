"""API keys for tests, and clients of a node that send one."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from app.access.caller import Scope
from app.access.keys import NewKey, create_key
from app.db.session import Database
from testing.node import Node
from testing.waiting import PATIENCE_S


def new_key(database_url: str, name: str, *scopes: Scope) -> NewKey:
    """Create a key with these scopes, all but `admin` if there are none."""
    db = Database(database_url)
    try:
        new = create_key(db, name, scopes or [scope for scope in Scope if scope is not Scope.ADMIN])
    finally:
        db.close()
    assert new is not None
    return new


@contextmanager
def client_of(node: Node, key: str | None) -> Iterator[httpx.Client]:
    """Yield a client of a node that sends a key with every request."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=node.http.base_url, timeout=PATIENCE_S, headers=headers) as http:
        yield http
