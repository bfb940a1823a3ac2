"""Ten thousand images over a night: an estimate first, then the dataset, and its archive at the end.

    python examples/overnight.py

It may be killed and started again at any point, and so may the service: started again with the same settings, it
continues with the same dataset and the same download, and keeps a file that is whole. Settings: NAME, OUT,
TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS, SEED, FOXHOUND_URL, FOXHOUND_API_KEY.
"""

import os
from datetime import datetime

from foxhound_client import Foxhound, FoxhoundError
from foxhound_client.requests import DatasetCreate

DAY_S = 86_400.0
name = os.environ.get("NAME", "overnight")
recipe: DatasetCreate = {
    "name": name,
    "seed": int(os.environ.get("SEED", "7")),  # every image follows from it
    "classes": [
        {"name": "fox", "prompts": ["a {style} of a red fox {place}", "a {style} of a fox, seen from the side"]},
        {
            "name": "dog",
            "prompts": ["a {style} of a golden retriever {place}", "a {style} of a dog, seen from the side"],
        },
    ],
    "variables": {
        "style": ["watercolor painting", "pencil sketch", "oil painting"],
        "place": ["in the snow", "on a meadow", "in a forest"],
    },
    "train_per_class": int(os.environ.get("TRAIN_PER_CLASS", "4500")),  # 2 classes x (4500 + 500) = 10,000 images
    "test_per_class": int(os.environ.get("TEST_PER_CLASS", "500")),
    "generation": {
        "num_inference_steps": int(os.environ.get("STEPS", "20")),
        "guidance_scale": {"min": 2.0, "max": 8.0},
    },
}


def tell(text: str) -> None:
    """Print a line with the time, so that a log shows in the morning when it was."""
    print(f"{datetime.now():%F %T} {text}")


with Foxhound(first_answer_s=DAY_S, retry_for_s=DAY_S, on_retry=tell) as fox:
    try:
        tell(fox.datasets.plan(**recipe).estimate)
    except FoxhoundError as refused:  # from the second run on there is nothing to estimate
        if refused.code != "dataset_name_taken":
            raise
    dataset = fox.datasets.ensure(**recipe).dataset
    fox.datasets.wait(dataset.id, on_progress=lambda done, total, unit: tell(f"{done} of {total} {unit}"))
    path = fox.datasets.archive(dataset.id, os.environ.get("OUT", f"{name}.zip"), only_if_changed=True)
    tell(f"saved {path}: {path.stat().st_size} bytes")
