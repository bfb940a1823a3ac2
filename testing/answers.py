"""Answers of a service as tests script them: whole documents that a client accepts."""

from typing import Any

TIME = "2026-01-02T03:04:05Z"
PROGRESS = {
    "done": 0,
    "total": 0,
    "unit": "images",
    "phase": None,
    "rate_per_minute": None,
    "estimated_finish_at": None,
}
COUNTS = {"train_per_class": 1, "validation_per_class": 0, "test_per_class": 0}
GENERATION: dict[str, Any] = {
    "model": None,
    "width": None,
    "height": None,
    "scheduler": None,
    "output_format": "png",
    "speed": "balanced",
    "timestep_spacing": None,
    "guidance_interval": None,
    "guidance_scale": 7.5,
    "num_inference_steps": 50,
    "strength": None,
    "loras": [],
    "embeddings": [],
}
RECIPE = {
    **COUNTS,
    "seed": 1,
    "generation": GENERATION,
    "combine": "cartesian",
    "filter": None,
    "max_attempts": 1,
    "preset": None,
}


def a_dataset(**changes: object) -> dict[str, Any]:
    """Return a dataset with the id `d` and the job `j`."""
    read = {"kind": "dataset", "id": "d", "name": "n", "created_at": TIME, "status": "ready", "job_id": "j"}
    numbers = {"num_images": 0, "num_rejected": 0, "missing": [], "progress": PROGRESS}
    numbers["reviews"] = {"accepted": 0, "rejected": 0}
    return {**RECIPE, **read, "classes": [], "model": None, **numbers, **changes}


def a_plan(**changes: object) -> dict[str, Any]:
    """Return the answer to a dry run."""
    planned = {"kind": "plan", "name": "n", "variables": {}, "classes": [], "num_images": 1, "samples": []}
    estimate: dict[str, Any] = {
        "row_steps": 50,
        "estimated_seconds": None,
        "estimate_basis": "unknown",
        "estimate": "",
        "assumptions": [],
    }
    return {**RECIPE, **planned, **estimate, **changes}


def a_planned_image(**changes: object) -> dict[str, Any]:
    """Return an image of a plan."""
    place = {"class_name": "fox", "split": "train", "position": 0, "prompt": "a fox", "variables": {}}
    place |= {"from_image": None, "strength": None}
    return {**place, "negative_prompt": "", "guidance_scale": 7.5, "num_inference_steps": 50, "seed": 1, **changes}


def a_job(version: int, done: int, status: str = "running", **changes: object) -> dict[str, Any]:
    """Return the job `j` of a dataset of 400 images."""
    progress = {**PROGRESS, "done": done, "total": 400, "rate_per_minute": 100.0}
    times = {"created_at": TIME, "started_at": None, "finished_at": None}
    record = {"priority": 0, "retry_of": None, "request_id": None, "error": None, "attempts": 1, "result": None}
    job = {
        "kind": "dataset",
        "id": "j",
        "version": version,
        "status": status,
        "progress": progress,
        "spec": {"dataset_id": "d"},
    }
    return {**job, **record, **times, **changes}
