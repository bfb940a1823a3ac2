"""Who sent a request reaches the engine, and a job passes on who submitted it."""

from concurrent.futures import ThreadPoolExecutor

from app.image_spec import ImageSpec
from testing.node import Node
from testing.pictures import job_row
from testing.waiting import PATIENCE_S, wait_until
from testing.workbench import Workbench

HERE = "address:127.0.0.1"


def test_an_image_and_its_scores_are_of_the_address_that_asked(node: Node) -> None:
    body = {"prompt": "a fox", "num_inference_steps": 1, "labels": ["fox", "dog"]}
    assert node.http.post("/generate", json=body).status_code == 200
    assert (node.models.diffusion.callers, node.models.clip.callers) == ([HERE], [HERE])


def test_a_dataset_is_of_the_address_that_submitted_it(bench: Workbench) -> None:
    read = bench.make("foxes", train_per_class=1)
    assert job_row(bench.db, read["job_id"]).caller == HERE
    assert bench.models.diffusion.callers == [HERE] * 2


def test_a_worker_of_an_older_release_names_no_caller(bench: Workbench) -> None:
    spec = ImageSpec("a fox", num_inference_steps=1, height=64, width=64, seed=1)
    bench.client.render(spec, labels=None, background=True, keep_waiting=lambda: None)
    assert bench.models.diffusion.callers == [""]


def test_a_full_queue_takes_in_others_than_the_caller_who_filled_it(small_node: Node) -> None:
    models, body = small_node.models, {"prompt": "a fox", "num_inference_steps": 1}
    models.diffusion.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        try:
            sent = [pool.submit(small_node.http.post, "/generate", json=body)]
            assert models.diffusion.stepping.wait(PATIENCE_S)  # so that the others wait
            sent += [pool.submit(small_node.http.post, "/generate", json=body) for _ in range(2)]
            wait_until(lambda: models.engine.in_flight()["diffusion"] == 3)
            refused = small_node.http.post("/generate", json=body)
            spec = ImageSpec("a dog", num_inference_steps=1, height=64, width=64, seed=1)
            other = models.engine.submit("diffusion", spec, caller="key:another")
        finally:
            models.diffusion.gate.set()
        assert [answer.result().status_code for answer in sent] == [200] * 3
    assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
    assert refused.headers["retry-after"] == "3", "three images ahead of it, of a second each until one is measured"
    assert other.result(PATIENCE_S) is not None
