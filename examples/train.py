"""A classifier from a dataset, and what it says about a new picture.

    DATASET=fox-dog-prompts python examples/train.py

Started again, it waits for the same job or uses the same model. Settings: DATASET (its name; default: a small one is
made), NAME (of the model), EPOCHS, OUT (of the weights), TRAIN_PER_CLASS, TEST_PER_CLASS, STEPS, FOXHOUND_URL,
FOXHOUND_API_KEY.
"""

import os

from foxhound_client import Foxhound

name = os.environ.get("NAME", "fox-or-dog")
prompts = {"fox": "a watercolor painting of a red fox", "dog": "a watercolor painting of a golden retriever"}


def show(done: int, total: int, unit: str) -> None:
    """Print how far a job is."""
    print(f"   {done} of {total} {unit}")


with Foxhound(retry_for_s=600) as fox:
    dataset_id = os.environ.get("DATASET") or (
        fox.datasets.ensure(
            name=name,
            seed=7,
            classes=[{"name": label, "prompts": [prompt]} for label, prompt in prompts.items()],
            train_per_class=int(os.environ.get("TRAIN_PER_CLASS", "25")),
            test_per_class=int(os.environ.get("TEST_PER_CLASS", "5")),
            generation={"num_inference_steps": int(os.environ.get("STEPS", "20"))},
        ).dataset.id
    )
    dataset = fox.datasets.wait(dataset_id, on_progress=show)

    epochs = int(os.environ.get("EPOCHS", "10"))
    model = fox.models.ensure(dataset_id=dataset.id, name=name, epochs=epochs, on_progress=show)
    print(model.metrics.test.headline.sentence)

    picture = fox.generate_image(prompt=prompts["fox"], seed=1001)  # one that the model has never seen
    best = fox.classify(picture, model=name, top_k=2).predictions[0]
    print(f"{name} says {best.label} {best.probability:.4f}")
    path = fox.models.weights(model.id, os.environ.get("OUT", f"{name}.safetensors"), only_if_changed=True)
    print(f"saved {path}")
