"""What the crash tests ask of a node: small datasets, sent again under the same key while it is down."""

from typing import Any

import httpx

from testing.pictures import job_row
from testing.pictures import wait_for_end as wait_for_row
from tests.crash.house import House, wait_for_death
from tests.crash.invariants import Acknowledged


def dataset_body(
    name: str = "fox-dog", *, train_per_class: int = 3, test_per_class: int = 2, side: int = 64
) -> dict[str, Any]:
    """Describe a dataset of two classes whose filter rejects some images; 10 images in chunks of 4 by default."""
    return {
        "name": name,
        "seed": 7,
        "classes": [
            {"name": "fox", "prompts": ["a {style} of a red fox"]},
            {"name": "dog", "prompts": ["a {style} of a dog"]},
        ],
        "variables": {"style": ["watercolor", "sketch"]},
        "train_per_class": train_per_class,
        "test_per_class": test_per_class,
        "generation": {"width": side, "height": side, "num_inference_steps": 2, "output_format": "png"},
        "filter": {},
    }


def submit(house: House, body: dict[str, Any], key: str | None = None) -> Acknowledged:
    """Send a request and return what was acknowledged; raises httpx.TransportError when the node dies over it."""
    key = key or f"key-of-{body['name']}"
    answer = house.http.post("/datasets", json=body, headers={"Idempotency-Key": key})
    assert answer.status_code == 202, answer.text
    return Acknowledged(key, body, answer.json())


def insist(house: House, path: str) -> None:
    """Send a request that may be repeated until it is answered, though the node dies over it once."""
    try:
        answer = house.http.post(path)
    except httpx.TransportError:
        wait_for_death(house.node)
        house.mend()
        answer = house.http.post(path)
    assert answer.is_success, answer.text


def wait_for_end(house: House, job_id: str) -> str:
    """Wait until a job has ended, whether the node runs or not, and return its status."""
    return wait_for_row(house.db, job_id).status


def status(house: House, job_id: str) -> str:
    """Return a job's status, whether the node runs or not."""
    return job_row(house.db, job_id).status
