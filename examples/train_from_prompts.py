"""From prompts to a classifier in one request: the job makes the dataset first.

    python examples/train_from_prompts.py

Started again, it waits for the same job. Settings: NAME (of dataset and model), TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS,
EPOCHS, FOXHOUND_URL, FOXHOUND_API_KEY.
"""

import os

from foxhound_client import Foxhound

name = os.environ.get("NAME", "fox-dog-one-call")

with Foxhound(retry_for_s=600) as fox:
    model = fox.models.ensure(
        name=name,
        epochs=int(os.environ.get("EPOCHS", "10")),
        dataset={
            "name": name,
            "seed": 7,
            "classes": [
                {"name": "fox", "prompts": ["a watercolor painting of a red fox"]},
                {"name": "dog", "prompts": ["a watercolor painting of a golden retriever"]},
            ],
            "train_per_class": int(os.environ.get("TRAIN_PER_CLASS", "25")),
            "test_per_class": int(os.environ.get("TEST_PER_CLASS", "5")),
            "generation": {"num_inference_steps": int(os.environ.get("STEPS", "20"))},
        },
        on_progress=lambda done, total, unit: print(f"   {done} of {total} {unit}"),
    )
    print(f"model {model.name} ({model.id}), classes {', '.join(model.classes)}")
    print(model.metrics.test.headline.sentence)
