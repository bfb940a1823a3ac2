"""Pictures from a prompt: as JSON with their ids, and as the bytes of one picture.

    python examples/generate.py

Settings: PROMPT, SEED, STEPS, OUT_DIR, FOXHOUND_URL, FOXHOUND_API_KEY. The same seed gives the same pictures.
"""

import os
from pathlib import Path

from foxhound_client import Foxhound

prompt = os.environ.get("PROMPT", "a watercolor painting of a red fox")
seed, steps = (int(os.environ.get(name, default)) for name, default in (("SEED", "42"), ("STEPS", "20")))
folder = Path(os.environ.get("OUT_DIR", "generated"))
folder.mkdir(parents=True, exist_ok=True)

with Foxhound() as fox:
    # JSON: two pictures, which the service keeps. `labels` adds CLIP's opinion of each.
    made = fox.generate(
        prompt=prompt, seed=seed, num_inference_steps=steps, num_images_per_prompt=2, labels=["fox", "dog"]
    )
    for image in made.images:
        path = folder / f"seed-{image.seed}.png"
        path.write_bytes(fox.image(image.id))
        print(f"saved {path}: {image.label_probabilities}")

    # Bytes: the answer is the picture itself.
    data = fox.generate_image(prompt=prompt, seed=seed, num_inference_steps=steps, output_format="webp")
    (folder / "fox.webp").write_bytes(data)
    print(f"saved {folder / 'fox.webp'}")
