"""Datasets of a service: create one exactly once, find it by id or name, extend, pause, resume and repair it.

The module uses the routes and error codes of the API. It prints nothing and imports nothing of the server. Everything
runs in the caller's thread.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Set
from urllib.parse import quote

from app.client.following import ENDED
from app.client.service import Json, Refused, Service

# How many keys are tried while the datasets created under earlier ones are deleted; the service keeps keys for a day.
MAX_KEYS = 20
PAGE_SIZE = 100


def key_of(service_url: str, request: Json, turn: int = 0) -> str:
    """Return the `Idempotency-Key` of a request, a hash of it, so that the same command sends the same key.

    Args:
        service_url: URL of the service that receives it.
        request: The body of `POST /datasets`, its name included.
        turn: How many datasets of this request have been created and deleted before, >= 0.
    """
    text = json.dumps([service_url, request, turn], sort_keys=True, separators=(",", ":"))
    return f"foxhound-{hashlib.sha256(text.encode()).hexdigest()}"


def plan(service: Service, request: Json) -> Json:
    """Return the plan of a request (a dry run).

    Raises:
        Refused: The request is invalid, or the service does not support dry runs and has accepted it.
        Unreachable: The service does not answer.
    """
    answer, response = service.request("POST", "/datasets", body=request, query={"dry_run": "true"})
    if response.status_code == 202:
        raise Refused(
            202, "", [f"This service does not support dry runs; it has accepted the dataset {answer.get('id')}."]
        )
    return answer


def create(service: Service, request: Json, key: str | None = None) -> tuple[Json, str, bool]:
    """Create a dataset unless the same request has created it already.

    The service keeps a key for a day. After that, the dataset is found by its name; it counts as the same if its
    recipe equals the requested one.

    Args:
        service: The service.
        request: The body of `POST /datasets`.
        key: The `Idempotency-Key`; None: a hash of the request.

    Returns:
        The dataset, the key that was used, and whether the dataset existed already.

    Raises:
        Refused: The request is invalid, or another dataset has the name.
        Unreachable: The service does not answer.
    """
    keys = [key] if key else [key_of(service.url, request, turn) for turn in range(MAX_KEYS)]
    for each_key in keys:
        try:
            answer, response = service.request("POST", "/datasets", body=request, headers={"Idempotency-Key": each_key})
        except Refused as refused:
            made = created_before(service, request, refused)
            if made is None:
                raise
            return made, each_key, True
        if "idempotency-replayed" not in response.headers:
            return answer, each_key, False
        try:
            return service.get(_path(str(answer["id"]))), each_key, True
        except Refused as refused:
            if refused.status != 404:
                raise
    raise Refused(404, "", ["The dataset created under this key has been deleted. Give another --idempotency-key."])


def created_before(service: Service, request: Json, refused: Refused) -> Json | None:
    """Return the dataset that the same request created before, if its name is why the request was refused; else None.

    Raises:
        Refused: The service answered with a problem.
        Unreachable: The service does not answer.
    """
    return _with_same_recipe(service, request) if refused.code == "dataset_name_taken" else None


def plan_extension(service: Service, dataset: Json, request: Json) -> Json:
    """Return the plan of `extend` (a dry run).

    Raises:
        Refused: The request is invalid, or a job works on the dataset.
        Unreachable: The service does not answer.
    """
    return service.request("POST", f"{_path(dataset['id'])}/extend", body=request, query={"dry_run": "true"})[0]


def extend(service: Service, dataset: Json, request: Json, key: str | None = None) -> Json:
    """Submit the extension of a dataset and return the dataset.

    The default key follows from the request and the dataset's last job. So a repeated call is refused while the job
    runs, and adds as many images again after it has ended.

    Args:
        service: The service.
        dataset: The dataset, as read from the service.
        request: The body of `POST /datasets/{id}/extend`.
        key: The `Idempotency-Key`; None: the default key.

    Raises:
        Refused: The request is invalid, or a job works on the dataset.
        Unreachable: The service does not answer.
    """
    path = f"{_path(dataset['id'])}/extend"
    sent_key = key or key_of(service.url, {"path": path, "after": dataset["job_id"], **request})
    return service.request("POST", path, body=request, headers={"Idempotency-Key": sent_key})[0]


def find(service: Service, id_or_name: str) -> Json:
    """Return the dataset with an id or a name.

    Raises:
        Refused: There is no such dataset.
        Unreachable: The service does not answer.
    """
    try:
        return service.get(_path(id_or_name))
    except Refused as refused:
        if refused.status != 404:
            raise
        named = next((one for one in list_all(service) if one["name"] == id_or_name), None)
        if named is None:
            raise
        return named


def list_all(service: Service) -> Iterator[Json]:
    """Yield every dataset, newest first.

    Raises:
        Refused: The service answered with a problem.
        Unreachable: The service does not answer.
    """
    query = {"limit": str(PAGE_SIZE)}
    while True:
        page = service.get("/datasets", **query)
        yield from page["items"]
        if not page["next_cursor"]:
            return
        query["cursor"] = page["next_cursor"]


def pause(service: Service, dataset: Json) -> Json | None:
    """Pause the dataset's job and return the job; None if the dataset has no job."""
    job_id = dataset["job_id"]
    return None if job_id is None else service.request("POST", f"/jobs/{job_id}/pause")[0]


def resume(service: Service, dataset: Json) -> Json | None:
    """Resume the dataset's job and return the job; None if the dataset has no job.

    If the job failed, was cancelled or left the dataset incomplete, a new job retries it.

    Raises:
        Refused: The job cannot be retried.
        Unreachable: The service does not answer.
    """
    job_id = dataset["job_id"]
    if job_id is None:
        return None
    # Whatever its status: a job that is still running may have been asked to pause.
    job = service.request("POST", f"/jobs/{job_id}/resume")[0]
    if job["status"] in ENDED and (job["status"] != "succeeded" or dataset["status"] == "incomplete"):
        headers = {"Idempotency-Key": f"foxhound-retry-{job_id}"}
        return service.request("POST", f"/jobs/{job_id}/retry", headers=headers)[0]
    return job


def repair(service: Service, dataset: Json) -> Json:
    """Submit a job that checks every file of a dataset and generates lost images again; return the job.

    Raises:
        Refused: A job works on the dataset, or the loaded model pack is not the one that generated it.
        Unreachable: The service does not answer.
    """
    headers = {
        "Idempotency-Key": f"foxhound-{uuid.uuid4()}"
    }  # the retries of one call share a key; each call is a new check
    return service.request("POST", f"{_path(dataset['id'])}/repair", headers=headers)[0]


def archive_path(dataset: Json) -> str:
    """Return the path of the dataset's archive."""
    return f"{_path(dataset['id'])}/archive.zip"


def _path(dataset_id: str) -> str:
    return f"/datasets/{quote(dataset_id, safe='')}"


def _with_same_recipe(service: Service, request: Json) -> Json | None:
    """Return the dataset that has the request's name and the same recipe; None if there is none."""
    named = next((one for one in list_all(service) if one["name"] == request.get("name")), None)
    if named is None:
        return None
    recipe = service.get(f"{_path(named['id'])}/recipe")
    # Compare the recipes as the service resolves them. The plan needs another name because this one is taken.
    planned = plan(service, {**request, "name": f"same-as-{uuid.uuid4()}"})
    ignored = {"name"} if request.get("seed") is not None else {"name", "seed"}
    return named if _resolved(recipe, ignored) == _resolved(planned, ignored, recipe) else None


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
