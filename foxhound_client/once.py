"""Creates a dataset once, however often the same program or command runs, and finds objects by id or name.

The service keeps an `Idempotency-Key` for a day. After that a dataset is found by its name; it counts as the same
if its recipe equals the requested one.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from foxhound_client.downloads import OnProgress
from foxhound_client.errors import FoxhoundError, NotFound
from foxhound_client.events import wait
from foxhound_client.models import DatasetPage, DatasetPlan, DatasetRead
from foxhound_client.sending import Policy, fetch, parsed, send
from foxhound_client.steps import Flow, Request

# How many keys are tried while the datasets created under earlier ones are deleted; the service keeps keys for a day.
MAX_KEYS = 20
PAGE_SIZE = 100

Json = dict[str, Any]


@dataclass(frozen=True)
class Ensured:
    """A dataset that exists.

    Attributes:
        dataset: The dataset.
        idempotency_key: The key under which it was created.
        existed: Whether an earlier request has created it.
    """

    dataset: DatasetRead
    idempotency_key: str
    existed: bool


def json_request(method: str, path: str, body: Any, **others: Any) -> Request:
    """Return a request with a JSON body, in ASCII, so that lone surrogates can be sent too."""
    headers = {**others.pop("headers", {}), "Content-Type": "application/json"}
    return Request(method, path, headers=headers, content=json.dumps(body).encode(), **others)


def path_of(collection: str, object_id: str) -> str:
    """Return the path of an object."""
    return f"/{collection}/{quote(object_id, safe='')}"


def key_of(service_url: str, request: Any, turn: int = 0) -> str:
    """Return the `Idempotency-Key` of a request, a hash of it, so that the same program sends the same key.

    Args:
        service_url: URL of the service that receives it.
        request: The body, the object's name included.
        turn: How many objects of this request have been created and deleted before, >= 0.
    """
    text = json.dumps([service_url, request, turn], sort_keys=True, separators=(",", ":"))
    return f"foxhound-{hashlib.sha256(text.encode()).hexdigest()}"


def find(policy: Policy, collection: str, id_or_name: str, kind: Any, page: Any) -> Flow[Any]:
    """Return the object with an id or a name.

    Args:
        policy: How long to retry.
        collection: `datasets` or `models`.
        id_or_name: Its id or name.
        kind: The model of an object.
        page: The model of a page of the list.

    Raises:
        NotFound: There is none.
    """
    try:
        return (yield from fetch(policy, Request("GET", path_of(collection, id_or_name)), kind))
    except NotFound:  # a service of version 0.2 knows no names here
        found = yield from _named(policy, collection, id_or_name, page)
        if found is None:
            raise
        return (yield from fetch(policy, Request("GET", path_of(collection, found.id)), kind))


def plan(policy: Policy, body: Any) -> Flow[DatasetPlan]:
    """Return the plan of a request to create a dataset (a dry run)."""
    request = json_request("POST", "/datasets", body, query={"dry_run": "true"})
    found: DatasetPlan = yield from fetch(policy, request, DatasetPlan)
    return found


def ensure(policy: Policy, body: Any, idempotency_key: str | None) -> Flow[Ensured]:
    """Create a dataset unless the same request has created it already.

    Args:
        policy: How long to retry.
        body: The body of `POST /datasets`.
        idempotency_key: The key; None: a hash of the request.

    Raises:
        FoxhoundError: The request is invalid, or another dataset has the name.
    """
    keys = [idempotency_key] if idempotency_key else [key_of(policy.url, body, turn) for turn in range(MAX_KEYS)]
    for key in keys:
        try:
            answer = yield from send(policy, json_request("POST", "/datasets", body, headers={"Idempotency-Key": key}))
        except FoxhoundError as refused:
            made = yield from created_before(policy, body, refused)
            if made is None:
                raise
            return Ensured(made, key, existed=True)
        dataset: DatasetRead = parsed(answer.content, DatasetRead)
        if "idempotency-replayed" not in answer.headers:
            return Ensured(dataset, key, existed=False)
        try:
            dataset = yield from fetch(policy, Request("GET", path_of("datasets", dataset.id)), DatasetRead)
            return Ensured(dataset, key, existed=True)
        except NotFound:
            continue
    raise FoxhoundError("The dataset created under this key has been deleted. Give another idempotency key.")


def created_before(policy: Policy, body: Any, refused: FoxhoundError) -> Flow[DatasetRead | None]:
    """Return the dataset that the same request created before; None unless its name is why it was refused."""
    if refused.code != "dataset_name_taken":
        return None
    named = yield from _named(policy, "datasets", str(body.get("name")), DatasetPage)
    if named is None:
        return None
    recipe = yield from _json(policy, Request("GET", f"{path_of('datasets', named.id)}/recipe"))
    # Compare the recipes as the service resolves them. The plan needs another name because this one is taken.
    other_name = {**body, "name": f"same-as-{uuid.uuid4()}"}
    planned = yield from _json(policy, json_request("POST", "/datasets", other_name, query={"dry_run": "true"}))
    ignored = {"name"} if body.get("seed") is not None else {"name", "seed"}
    if _resolved(recipe, ignored) != _resolved(planned, ignored, recipe):
        return None
    dataset: DatasetRead = yield from fetch(policy, Request("GET", path_of("datasets", named.id)), DatasetRead)
    return dataset


def filled(policy: Policy, dataset_id: str, on_progress: OnProgress | None) -> Flow[DatasetRead]:
    """Wait until a dataset's last job has succeeded; return the dataset."""
    read = Request("GET", path_of("datasets", dataset_id))
    dataset: DatasetRead = yield from fetch(policy, read, DatasetRead)
    if dataset.job_id is None or dataset.status in ("ready", "empty"):
        return dataset
    yield from wait(policy, path_of("jobs", dataset.job_id), on_progress)
    return (yield from fetch(policy, read, DatasetRead))


def pages(policy: Policy, path: str, kind: Any, query: Json | None = None) -> Flow[Any]:
    """Return all items of a list, in its order."""
    items: list[Any] = []
    query = {"limit": str(PAGE_SIZE), **(query or {})}
    while True:
        page = yield from fetch(policy, Request("GET", path, query=query), kind)
        items += page.items
        if not page.next_cursor:
            return items
        query["cursor"] = page.next_cursor


def _named(policy: Policy, collection: str, name: str, page_kind: Any) -> Flow[Any]:
    """Return the item of a list that has a name; None if there is none."""
    query = {"limit": str(PAGE_SIZE), "name": name}  # a service of version 0.2 ignores the name
    while True:
        page = yield from fetch(policy, Request("GET", f"/{collection}", query=query), page_kind)
        found = next((item for item in page.items if item.name == name), None)
        if found is not None or not page.next_cursor:
            return found
        query["cursor"] = page.next_cursor


def _json(policy: Policy, request: Request) -> Flow[Json]:
    document: Json = yield from fetch(policy, request, Json)
    return document


def _resolved(recipe: Json, ignored: Set[str], names: Iterable[str] = ()) -> Json:
    """Return the fields of a recipe or a plan that define the recipe.

    Args:
        recipe: A recipe or a plan.
        ignored: Fields to leave out.
        names: The fields to take; default: all of `recipe`.
    """
    fields = {name: recipe.get(name) for name in names or recipe if name not in ignored}
    fields["classes"] = [{**entry, "folder": None} for entry in recipe["classes"]]
    return fields
