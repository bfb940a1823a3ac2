"""Recipes as large as they may be: their jobs go on, the node answers meanwhile, and a restart changes nothing."""

from functools import partial

import httpx

from testing.pictures import job_row
from testing.recipes import LARGE, many_classes
from testing.waiting import wait_for, wait_until
from tests.crash.asking import dataset_body, insist, status, submit
from tests.crash.house import House


def wait_for_progress(house: House, job_id: str, more: int = 1) -> None:
    """Wait until so many more images of a job are recorded."""
    before = job_row(house.db, job_id).progress_done
    wait_until(lambda: job_row(house.db, job_id).progress_done >= before + more)


def assert_answers(house: House, name: str) -> None:
    """See that the node answers and accepts while it works, without waiting for a lock."""
    with httpx.Client(base_url=house.http.base_url, timeout=9) as http:
        assert http.get("/livez").is_success
        answer = http.post("/datasets", json=dataset_body(name))
    assert answer.status_code == 202, answer.text
    insist(house, f"/jobs/{answer.json()['job_id']}/cancel")


def test_large_recipes_keep_nobody_waiting(house: House) -> None:
    house.mend()
    for recipe in LARGE:
        body = recipe()
        job_id = submit(house, body).answer["job_id"]
        wait_for_progress(house, job_id)
        assert_answers(house, f"beside-{body['name']}")
        wait_for_progress(house, job_id)
        insist(house, f"/jobs/{job_id}/cancel")
        wait_for(partial(status, house, job_id), "cancelled".__eq__)


def test_a_large_recipe_goes_on_after_both_processes_died(house: House) -> None:
    house.mend()
    job_id = submit(house, many_classes(num=120, prompts=25)).answer["job_id"]
    wait_for_progress(house, job_id)
    house.kill()
    house.mend()
    wait_for_progress(house, job_id, more=8)
    assert_answers(house, "beside")
