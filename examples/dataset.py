"""A dataset from prompts: make it, follow its job by events, download it.

    python examples/dataset.py

It may be killed, or the service restarted, at any point: started again, it continues with the same dataset and the same
download. Settings: NAME, TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS, OUT, FOXHOUND_URL, FOXHOUND_API_KEY.
"""

import os

from foxhound_client import Foxhound

name = os.environ.get("NAME", "fox-dog-prompts")

with Foxhound(retry_for_s=600) as fox:
    dataset = fox.datasets.ensure(
        name=name,
        seed=7,
        classes=[
            {"name": "fox", "prompts": ["a {style} of a red fox"]},
            {"name": "dog", "prompts": ["a {style} of a golden retriever"]},
        ],
        variables={"style": ["watercolor painting", "pencil sketch"]},
        train_per_class=int(os.environ.get("TRAIN_PER_CLASS", "25")),
        test_per_class=int(os.environ.get("TEST_PER_CLASS", "5")),
        generation={"num_inference_steps": int(os.environ.get("STEPS", "20"))},
    ).dataset
    print(f"dataset {dataset.id} is {dataset.status}, the last image at about {dataset.progress.estimated_finish_at}")

    fox.datasets.wait(dataset.id, on_progress=lambda done, total, unit: print(f"   {done} of {total} {unit}"))
    path = fox.datasets.archive(dataset.id, os.environ.get("OUT", f"{name}.zip"), only_if_changed=True)
    print(f"saved {path}: {path.stat().st_size} bytes")
