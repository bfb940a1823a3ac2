"""What the end-to-end tests ask a node for, and how they wait for it."""

from pathlib import Path

import httpx

from testing.waiting import wait_for

FOX, DOG = "a watercolor painting of a red fox", "a watercolor painting of a golden retriever"
FINISHED = ("succeeded", "failed", "cancelled")


def dataset(**changes: object) -> dict:
    classes = [{"name": "fox", "prompts": [FOX]}, {"name": "dog", "prompts": [DOG]}]
    return {
        "name": "fox-dog",
        "seed": 7,
        "classes": classes,
        "train_per_class": 6,
        "test_per_class": 2,
        "generation": {"num_inference_steps": 10, "scheduler": "dpmpp_2m"},
        **changes,
    }


def follow(http: httpx.Client, job_id: str) -> dict:
    return wait_for(lambda: http.get(f"/jobs/{job_id}").json(), lambda job: job["status"] in FINISHED)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
