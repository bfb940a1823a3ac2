"""Datasets of a service: make one just once, find it by id or name, stop it and let it go on.

Knows the routes and the words of the API; nothing of terminals.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Set
from urllib.parse import quote

from app.client.following import ENDED
from app.client.service import Json, Refused, Service

# Keys that are tried when the datasets made under earlier ones have been deleted since; a day's keys are kept.
MAX_KEYS = 20
PAGE_SIZE = 100


def key_of(service_url: str, request: Json, turn: int = 0) -> str:
    """Return the `Idempotency-Key` that follows from a request: the same command, the same key.

    Args:
        service_url: Where it is sent.
        request: The body of `POST /datasets`, its name included.
        turn: How many datasets of this very request have been made and deleted before, >= 0.
    """
    text = json.dumps([service_url, request, turn], sort_keys=True, separators=(",", ":"))
    return f"foxhound-{hashlib.sha256(text.encode()).hexdigest()}"


def plan(service: Service, request: Json) -> Json:
    """Return what a request would make.

    Raises:
        Refused: The request is invalid; or the service knows no dry run, and has accepted it.
        Unreachable: No answer.
    """
    answer, response = service.request("POST", "/datasets", body=request, query={"dry_run": "true"})
    if response.status_code == 202:
        raise Refused(202, "", [f"this service knows no dry run; it has accepted the dataset {answer.get('id')}"])
    return answer


def create(service: Service, request: Json, key: str | None = None) -> tuple[Json, str, bool]:
    """Make a dataset unless this request has made it already; return it, the key, and whether it was there.

    The service forgets a key after a day. Who comes later finds the dataset by its name, and takes it for the same
    if its recipe is what was asked for.

    Args:
        service: Where.
        request: The body of `POST /datasets`.
        key: The `Idempotency-Key`; None: it follows from the request.

    Raises:
        Refused: The request is invalid, or another dataset has the name.
        Unreachable: No answer.
    """
    keys = [key] if key else [key_of(service.url, request, turn) for turn in range(MAX_KEYS)]
    for tried in keys:
        try:
            answer, response = service.request("POST", "/datasets", body=request, headers={"Idempotency-Key": tried})
        except Refused as refused:
            made = made_by(service, request, refused)
            if made is None:
                raise
            return made, tried, True
        if "idempotency-replayed" not in response.headers:
            return answer, tried, False
        try:
            return service.get(_path(str(answer["id"]))), tried, True
        except Refused as refused:
            if refused.status != 404:
                raise
    raise Refused(404, "", ["what was made under this key has been deleted since; give another --idempotency-key"])


def made_by(service: Service, request: Json, refused: Refused) -> Json | None:
    """Return the dataset that a request has made before, if that is why it was refused.

    Raises:
        Refused: The service answered with a problem.
        Unreachable: No answer.
    """
    return _same(service, request) if refused.code == "dataset_name_taken" else None


def plan_extension(service: Service, dataset: Json, request: Json) -> Json:
    """Return what `extend` would make.

    Raises:
        Refused: The request is invalid, or a job works on the dataset.
        Unreachable: No answer.
    """
    return service.request("POST", f"{_path(dataset['id'])}/extend", body=request, query={"dry_run": "true"})[0]


def extend(service: Service, dataset: Json, request: Json, key: str | None = None) -> Json:
    """Have more images made for a dataset, once for each state of it that was seen; return it.

    While they are made, another call is refused; after that, it makes as many more again.

    Args:
        service: Where.
        dataset: As it was read: the default key follows from its last job.
        request: The body of `POST /datasets/{id}/extend`.
        key: The `Idempotency-Key`; None: it follows from the request and the dataset.

    Raises:
        Refused: The request is invalid, or a job works on the dataset.
        Unreachable: No answer.
    """
    path = f"{_path(dataset['id'])}/extend"
    settled = key or key_of(service.url, {"path": path, "after": dataset["job_id"], **request})
    return service.request("POST", path, body=request, headers={"Idempotency-Key": settled})[0]


def find(service: Service, id_or_name: str) -> Json:
    """Return a dataset.

    Raises:
        Refused: There is none.
        Unreachable: No answer.
    """
    try:
        return service.get(_path(id_or_name))
    except Refused as refused:
        if refused.status != 404:
            raise
        named = next((one for one in everything(service) if one["name"] == id_or_name), None)
        if named is None:
            raise
        return named


def everything(service: Service) -> Iterator[Json]:
    """Give each dataset, newest first.

    Raises:
        Refused: The service answered with a problem.
        Unreachable: No answer.
    """
    query = {"limit": str(PAGE_SIZE)}
    while True:
        page = service.get("/datasets", **query)
        yield from page["items"]
        if not page["next_cursor"]:
            return
        query["cursor"] = page["next_cursor"]


def pause(service: Service, dataset: Json) -> Json | None:
    """Pause the dataset's job and return it; None if there is none."""
    job_id = dataset["job_id"]
    return None if job_id is None else service.request("POST", f"/jobs/{job_id}/pause")[0]


def resume(service: Service, dataset: Json) -> Json | None:
    """Let the dataset's job go on, and return it, None if there is none.

    One that failed, was cancelled or left the dataset incomplete goes on as a new job.

    Raises:
        Refused: The work cannot be done any more.
        Unreachable: No answer.
    """
    job_id = dataset["job_id"]
    if job_id is None:
        return None
    # Not by its status: a running job may have been asked to pause, and has to be told.
    job = service.request("POST", f"/jobs/{job_id}/resume")[0]
    if job["status"] in ENDED and (job["status"] != "succeeded" or dataset["status"] == "incomplete"):
        headers = {"Idempotency-Key": f"foxhound-retry-{job_id}"}
        return service.request("POST", f"/jobs/{job_id}/retry", headers=headers)[0]
    return job


def repair(service: Service, dataset: Json) -> Json:
    """Have every file of a dataset looked at, and lost images drawn again; return the job.

    Raises:
        Refused: A job works on the dataset, or another pack is loaded than the one that drew it.
        Unreachable: No answer.
    """
    headers = {"Idempotency-Key": f"foxhound-{uuid.uuid4()}"}  # for the tries of this call; each call looks anew
    return service.request("POST", f"{_path(dataset['id'])}/repair", headers=headers)[0]


def archive_path(dataset: Json) -> str:
    """Return the path of the dataset's archive."""
    return f"{_path(dataset['id'])}/archive.zip"


def _path(dataset_id: str) -> str:
    return f"/datasets/{quote(dataset_id, safe='')}"


def _same(service: Service, request: Json) -> Json | None:
    """Return the dataset that has the request's name, if it has the recipe that the request gives."""
    named = next((one for one in everything(service) if one["name"] == request.get("name")), None)
    if named is None:
        return None
    recipe = service.get(f"{_path(named['id'])}/recipe")
    # Both as the service settles them; under a name of its own, since this one is taken.
    asked = plan(service, {**request, "name": f"same-as-{uuid.uuid4()}"})
    own = {"name"} if request.get("seed") is not None else {"name", "seed"}
    return named if _settled(recipe, own) == _settled(asked, own, recipe) else None


def _settled(told: Json, own: Set[str], names: Iterable[str] = ()) -> Json:
    """Return what a recipe or a plan tells of the recipe, but for these fields."""
    fields = {name: told.get(name) for name in names or told if name not in own}
    fields["classes"] = [{**entry, "folder": None} for entry in told["classes"]]
    return fields
