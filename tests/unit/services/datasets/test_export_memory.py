"""A dataset of 100,000 images leaves as a zip in little memory, measured in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAX_GROWTH_BYTES = 75_000_000
NUM_IMAGES = 100_000
# The rows are real, each with a prompt of its own; their paths share one file, since what is measured is the memory
# of listing and sending them, not the disk.
FILL = """
import hashlib, sys
from pathlib import Path
from sqlalchemy import insert
from app.db.base import new_id, utc_now
from app.db.models import Dataset, DatasetTexts, Image
from app.db.session import Database

url, root, num = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
db, data, now = Database(url), b"0" * 100, utc_now()
names = ["fox", "dog"]
(root / "one.png").write_bytes(data)
common = dict(created_at=now, format="png", width=8, height=8, num_bytes=100, dataset_id="many", split="train",
              source="synthetic", sha256=hashlib.sha256(data).hexdigest())
with db.transaction() as session:
    classes = [{"name": name, "folder": name, "num_prompts": 1} for name in names]
    texts = [{"prompts": ["p"], "negative_prompt": ""} for name in names]
    generation = {"guidance_scale": 7.5, "num_inference_steps": 50, "width": 64, "height": 64, "scheduler": "pndm",
                  "output_format": "png"}
    session.add(Dataset(id="many", name="many", status="ready", seed=1, classes=classes, train_per_class=num // 2,
                        test_per_class=0, generation=generation, created_at=now,
                        texts=DatasetTexts(classes=texts, variables={})))
    session.flush()
    for start in range(0, num, 10_000):
        session.execute(insert(Image), [
            dict(common, id=new_id(), path=f"datasets/many/train/{names[k % 2]}/{k:06d}-{k}.png", class_index=k % 2,
                 position=k, seed=k, lineage={"prompt": f"a watercolor painting of a red fox, variation {k}"})
            for k in range(start, start + 10_000)])
"""
# A process of its own: memory that filling the tables took and gave back would hide what the export takes.
EXPORT = """
import contextlib, json, sys
from pathlib import Path
from app.db.session import Database
from app.errors import NotFound
from app.services.datasets.exports.service import DatasetExportService
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks


class OneFile(DataFolder):
    def open(self, path):
        return super().open("one.png")


def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024


folder = OneFile(Path(sys.argv[2]))
service = DatasetExportService(Database(sys.argv[1]), folder, FileChecks(folder))
with contextlib.suppress(NotFound):
    service.archive("none")  # what the first query of a process loads is not the export's
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
archive = service.archive("many")
sent = sum(len(part) for part in archive.parts)
growth = resident("VmHWM") - before
print(json.dumps({"growth": growth, "sent": sent, "told": archive.num_bytes}))
"""


@pytest.mark.slow("writes and reads an archive of 100,000 images")
def test_a_hundred_thousand_images_leave_in_bounded_memory(tmp_path: Path, sqlite_template: Path) -> None:
    database = tmp_path / "foxhound.db"
    shutil.copyfile(sqlite_template, database)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4]), "OMP_NUM_THREADS": "1"}
    arguments = [f"sqlite:///{database}", str(tmp_path), str(NUM_IMAGES)]
    for script in (FILL, EXPORT):
        command = [sys.executable, "-c", script, *arguments]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=600)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["sent"] == seen["told"] > NUM_IMAGES * (100 + 92)
    assert seen["growth"] < MAX_GROWTH_BYTES, seen
