"""Kills at random moments of a working node, on each database; `make test-crash`, no part of the suite.

Rounds of four datasets: one is left alone, one pauses, one is cancelled, one is deleted; a round ends with every
invariant and the deletion of all, under kills as well. What is random follows from a seed, but for the machine's speed.
"""

import os
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx

from tests.crash.asking import dataset_body, submit
from tests.crash.conftest import RunUndisturbed
from tests.crash.house import House, end
from tests.crash.invariants import Acknowledged, check_all, check_folders

NUM_KILLS = int(os.environ.get("NUM_KILLS", "50"))
SEED = int(os.environ.get("SEED", "7"))
# Long enough that work gets on between the kills; a part killed three times is given up, and then retried here.
LONGEST_LIFE_S = 2.5
BODIES = [
    dataset_body(name, train_per_class=12, test_per_class=4) for name in ("steady", "pausing", "cancelled", "deleted")
]


class Soak:
    """A house under random kills.

    Attributes:
        num_kills: How many there were.
    """

    def __init__(self, house: House, rng: random.Random) -> None:
        self.house = house
        self.num_kills = 0
        self._rng = rng

    def strike(self, request: Callable[[], Any] | None = None) -> Any:
        """Kill one of the processes or both, at a random moment during a request or after it; then mend.

        Returns:
            What the request gave, None if the node died over it.
        """
        victims = self._rng.choice([["node"], ["worker"], ["worker"], ["node", "worker"]])
        longest_s = 0.03 if request is not None and self._rng.random() < 0.5 else LONGEST_LIFE_S
        striker = threading.Thread(target=self._kill, args=(victims, self._rng.uniform(0, longest_s)))
        striker.start()
        try:
            given = request() if request is not None else None
        except httpx.TransportError:
            given = None
        striker.join()
        self.num_kills += len(victims)
        with self.house.frozen():
            check_folders(self.house.data_dir)
        self.house.mend()
        return given

    def insist(self, request: Callable[[], Any]) -> Any:
        """Repeat a request, under kills, until it is answered."""
        while (given := self.strike(request)) is None:
            pass
        return given

    def _kill(self, victims: list[str], life_s: float) -> None:
        time.sleep(life_s)
        for victim in victims:
            end(getattr(self.house, victim))


def test_nothing_is_lost_or_twice_after_random_kills(house: House, run_undisturbed: RunUndisturbed) -> None:
    undisturbed = {body["name"]: run_undisturbed(body) for body in BODIES}
    house.mend()
    soak, number = Soak(house, random.Random(SEED)), 0
    while soak.num_kills < NUM_KILLS:
        number += 1
        accepted = play_round(soak, number)
        check_all(house, undisturbed, accepted)
        for entry in accepted:
            soak.insist(partial(gone, house, entry))
        check_all(house, undisturbed, accepted)
        assert house.http.get("/datasets").json()["items"] == []
    print(f"{soak.num_kills} kills in {number} rounds")  # noqa: T201


def play_round(soak: Soak, number: int) -> list[Acknowledged]:
    """Make the four datasets, with what befalls them, until nothing is left to do."""
    house = soak.house
    accepted = [soak.insist(partial(submit, house, body, key=f"{body['name']}-{number}")) for body in BODIES]
    jobs = {entry.body["name"]: entry.answer["job_id"] for entry in accepted}
    for name, wish in (("pausing", "pause"), ("cancelled", "cancel"), ("pausing", "resume"), ("deleted", "cancel")):
        soak.insist(partial(house.http.post, f"/jobs/{jobs[name]}/{wish}"))
    soak.insist(lambda: gone(house, accepted[3]))
    while unfinished(house, ["steady", "pausing"]):
        soak.strike()
        retry_given_up(house, accepted[:2], number)
    return accepted


def unfinished(house: House, names: list[str]) -> list[str]:
    """Return which of the datasets are not ready."""
    datasets = house.http.get("/datasets").json()["items"]
    return [dataset["name"] for dataset in datasets if dataset["name"] in names and dataset["status"] != "ready"]


def retry_given_up(house: House, accepted: list[Acknowledged], number: int) -> None:
    """Retry the jobs that were given up because a part of them died three times: that is all that may fail."""
    for entry in accepted:
        job_id = house.http.get(f"/datasets/{entry.answer['id']}").json()["job_id"]
        job = house.http.get(f"/jobs/{job_id}").json()
        assert job["status"] in ("queued", "running", "succeeded", "failed"), job
        if job["status"] == "failed":
            assert job["error"]["code"] == "attempts_exhausted", job
            assert house.http.post(f"/jobs/{job_id}/retry").status_code == 202


def gone(house: House, entry: Acknowledged) -> bool | None:
    """Delete a dataset, and tell whether it is gone; a job that works on it may have to end first."""
    status = house.http.delete(f"/datasets/{entry.answer['id']}").status_code
    assert status in (204, 404, 409)
    return True if status != 409 else None
