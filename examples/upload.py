"""A dataset of pictures of your own: PICTURES has a folder for each class, with at least one picture in it.

    PICTURES=photos python examples/upload.py

Started again, it uploads what is missing: the service refuses a picture that it has. Settings: PICTURES, NAME, OUT,
FOXHOUND_URL, FOXHOUND_API_KEY.
"""

import os
from pathlib import Path

from foxhound_client import Foxhound

name = os.environ.get("NAME", "my-pictures")
folders = sorted(path for path in Path(os.environ.get("PICTURES", "photos")).iterdir() if path.is_dir())

with Foxhound(retry_for_s=600) as fox:
    # No images are generated, so the prompts are never used.
    dataset = fox.datasets.ensure(
        name=name,
        seed=0,
        classes=[{"name": folder.name, "prompts": [folder.name]} for folder in folders],
        train_per_class=0,
        test_per_class=0,
    ).dataset

    for folder in folders:
        pictures = sorted(path for path in folder.iterdir() if path.is_file())
        told = fox.datasets.upload(dataset.id, pictures, class_name=folder.name)
        print(f"{folder.name}: {told.num_accepted} of {len(pictures)} taken")
        for file in told.files:
            if file.refused:
                print(f"   {pictures[file.index].name}: {file.refused.detail}")

    path = fox.datasets.archive(dataset.id, os.environ.get("OUT", f"{name}.zip"), only_if_changed=True)
    print(f"saved {path}: {fox.datasets.get(dataset.id).num_images} images")
