"""What CLIP and a classifier say about a picture of yours: a file is uploaded, nothing is stored.

    PICTURE=fox.jpg python examples/judge.py

Settings: PICTURE (default: one that is generated first), LABELS (separated by commas), MODEL (the name of a trained
model; default: the pretrained classifier), FOXHOUND_URL, FOXHOUND_API_KEY.
"""

import os
from pathlib import Path

from foxhound_client import Foxhound

labels = os.environ.get("LABELS", "fox,dog,car").split(",")

with Foxhound() as fox:
    if path := os.environ.get("PICTURE"):
        picture = Path(path).read_bytes()
    else:
        picture = fox.generate_image(prompt="a watercolor painting of a red fox", seed=42, num_inference_steps=10)

    print(f"CLIP, of {len(labels)} labels:")
    for score in fox.clip_score(picture, labels).scores:
        print(f"   {score.label} {score.probability:.4f}")

    best = fox.classify(picture, model=os.environ.get("MODEL"), top_k=3).predictions[0]
    print(f"classifier: {best.label} {best.probability:.4f}")
