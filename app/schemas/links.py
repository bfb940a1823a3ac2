"""OpenAPI links: from the answer that names a resource to each operation that takes its id in the path.

Derived from the document itself, so that no route declares its links. Imports no services; pure.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

# Where answers name a resource: by component, the path parameter and a JSON pointer to its value. Items of a list may
# be none; then the link leads nowhere.
_JOB = {"job_id": "/id"}
NAMED: Mapping[str, Mapping[str, str]] = {
    "DatasetPage": {"dataset_id": "/items/0/id"},
    "DatasetRead": {"dataset_id": "/id", "job_id": "/job_id"},
    "EvaluateJob": _JOB,
    "EvaluationPage": {"evaluation_id": "/items/0/id"},
    "GenerateJob": _JOB,
    "GenerationPage": {"generation_id": "/items/0/id"},
    "GenerationRead": {"generation_id": "/id", "image_id": "/images/0/id"},
    "ImagePage": {"image_id": "/items/0/id"},
    "JobPage": {"job_id": "/items/0/id"},
    "KeyCreatedRead": {"key_id": "/id"},
    "KeyPage": {"key_id": "/items/0/id"},
    "JobRead": _JOB,
    "ModelPage": {"model_id": "/items/0/id"},
    "RepairJob": _JOB,
    "TrainJobPage": {"job_id": "/items/0/id"},
    "TrainJobRead": _JOB,
    "UploadRead": {"image_id": "/files/0/image_id"},
}
# An operation on a resource of a resource needs both ids: the outer one is that of the request.
_OUTER = {"evaluation_id": "model_id"}


def add_links(document: dict[str, Any]) -> None:
    """Add links to the answers of a document that create or list resources, and the components that they refer to."""
    targets = list(_operations(document))
    components: dict[str, Any] = {}
    for path, operation in targets:
        for response, parameter, pointer in _named(path, operation):
            is_other_job = parameter == "job_id" and not _component(response).startswith("TrainJob")
            for target_path, target in targets:
                if _id_of(target_path) == parameter and not (is_other_job and target_path.startswith("/train-jobs")):
                    name, link = _link(target["operationId"], parameter, pointer)
                    components[name] = link
                    links = response.setdefault("links", {})
                    links[target["operationId"]] = {"$ref": f"#/components/links/{name}"}
    document["components"]["links"] = dict(sorted(components.items()))


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            yield path, operation


def _named(path: str, operation: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield each answer that names a resource, with the parameter and the pointer; not what the path names already."""
    for status, response in operation["responses"].items():
        named = NAMED.get(_component(response), {}) if status.startswith("2") else {}
        for parameter, pointer in named.items():
            if f"{{{parameter}}}" not in path:
                yield response, parameter, pointer


def _component(response: Mapping[str, Any]) -> str:
    reference: str = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    return reference.rpartition("/")[2]


def _id_of(path: str) -> str | None:
    """Return the parameter of a path that names its innermost resource, if a link can give what the path needs."""
    ids: list[str] = re.findall(r"\{(\w+_id)\}", path)
    return ids[-1] if ids and (len(ids) == 1 or ids[-1] in _OUTER) else None


def _link(operation_id: str, parameter: str, pointer: str) -> tuple[str, dict[str, Any]]:
    """Return a link to an operation, and the name of its component."""
    parameters = {parameter: f"$response.body#{pointer}"}
    if parameter in _OUTER:
        parameters = {_OUTER[parameter]: f"$request.path.{_OUTER[parameter]}", **parameters}
    where = "".join(step.capitalize() for step in pointer.split("/")[1:])
    return f"{operation_id}By{where}", {"operationId": operation_id, "parameters": parameters}
