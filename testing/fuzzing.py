"""Runs schemathesis, from an environment of its own, against a served node. `make fuzz` installs it first."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from app.access.caller import Scope
from testing.api_keys import new_key
from testing.waiting import PATIENCE_S, wait_for, wait_until

ROOT = Path(__file__).parents[1]
TOOLS = Path(os.environ.get("FUZZ_TOOLS", ROOT / "build" / "fuzz"))
# Schemathesis deletes some of them.
_NUM_MODELS = 4
FOLDER = ROOT / "tests" / "fuzz"


def fuzz(base_url: str, database_url: str, folder: Path, max_examples: int, *options: str) -> None:
    """Test each operation of a node's own OpenAPI file, in all phases and with all checks.

    Keys are on afterwards: schemathesis sends one that has every scope.

    Args:
        base_url: Of the node.
        database_url: Of the node.
        folder: For what schemathesis writes.
        max_examples: Test cases of one operation in a phase, >= 1.
        options: Further ones of `schemathesis run`.

    Raises:
        AssertionError: There were failures; schemathesis has printed them.
    """
    key = new_key(database_url, "fuzz", *Scope).key
    with httpx.Client(base_url=base_url, timeout=PATIENCE_S, headers={"Authorization": f"Bearer {key}"}) as http:
        wait_until(lambda: _answers(http))
        http.get("/openapi.json").raise_for_status()  # the first one takes seconds; schemathesis waits for ten
        config = _with_ids((FOLDER / "schemathesis.toml").read_text(), _fill(http))
    config_file = folder / "schemathesis.toml"
    config_file.write_text(config)
    command: list[str | Path] = [
        TOOLS / "bin" / "schemathesis",
        *("--config-file", config_file),
        *("run", f"{base_url}/openapi.json"),
        *("--checks", "all", "--max-examples", str(max_examples)),
        *("--seed", os.environ.get("FUZZ_SEED", "1")),
        *("--no-color", *options, *os.environ.get("FUZZ_OPTIONS", "").split()),
    ]
    environment = {**os.environ, "PYTHONPATH": str(FOLDER), "FOXHOUND_FUZZ_KEY": key}
    done = subprocess.run(command, check=False, cwd=folder, env=environment, stderr=sys.stdout.fileno())
    assert done.returncode == 0, f"schemathesis ended with {done.returncode}"


def _answers(http: httpx.Client) -> bool:
    try:
        return http.get("/livez").is_success
    except httpx.TransportError:
        return False


def _fill(http: httpx.Client) -> dict[str, list[str]]:
    """Train models, evaluate them and generate images; returns the ids by the names of their parameters."""
    classes = [{"name": name, "prompts": [f"a watercolor painting of a {name}"]} for name in ("fox", "dog")]
    counts = {"train_per_class": 4, "validation_per_class": 1, "test_per_class": 2}
    ids: dict[str, list[str]] = defaultdict(list)
    for number in range(_NUM_MODELS):
        dataset = {"name": f"filled-{number}", "classes": classes, "generation": {"num_inference_steps": 4}, **counts}
        job = _done(http, http.post("/train-jobs", json={"dataset": dataset, "epochs": 2}))
        evaluated = http.post(f"/models/{job['model_id']}/evaluations", json={"dataset_id": job["dataset_id"]})
        evaluation = _done(http, evaluated)
        generation = (
            http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 4}).raise_for_status().json()
        )
        ids["job_id"] += [job["id"], evaluation["id"]]
        ids["dataset_id"].append(job["dataset_id"])
        ids["model_id"].append(job["model_id"])
        ids["evaluation_id"].append(evaluation["result"]["evaluation_id"])
        ids["generation_id"].append(generation["id"])
        ids["image_id"].append(generation["images"][0]["id"])
    return ids


def _with_ids(config: str, ids: Mapping[str, Sequence[str]]) -> str:
    """Return a configuration in which half of the ids in paths exist, but for deletions."""
    dictionaries = [f"[dictionaries.{name}]\nvalues = {json.dumps(values)}" for name, values in ids.items()]
    bindings = [f'"path.{name}" = {{ dictionary = "{name}", probability = 0.5 }}' for name in ids]
    operations = ['[[operations]]\nexclude-method = "DELETE"\n[operations.parameters]', *bindings]
    return "\n".join([config, *dictionaries, *operations, ""])


def _done(http: httpx.Client, accepted: httpx.Response) -> dict[str, Any]:
    """Wait for the end of a job, and return it."""
    assert accepted.status_code == 202, accepted.text
    url = accepted.headers["location"]
    job: dict[str, Any] = wait_for(lambda: http.get(url).json(), lambda job: job["status"] in ("succeeded", "failed"))
    assert job["status"] == "succeeded", job
    return job
