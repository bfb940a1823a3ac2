"""A dataset of 100,000 images leaves as a zip in little memory, measured in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MAX_GROWTH_BYTES = 200_000_000
NUM_IMAGES = 100_000
# The rows are real, each with a prompt of its own; their paths share one file, since what is measured is the memory
# of listing and sending them, not the disk.
SCRIPT = """
import hashlib, json, sys
from pathlib import Path
from sqlalchemy import insert
from app.db.base import new_id, utc_now
from app.db.models import Dataset, Image
from app.db.session import Database
from app.services.dataset_export import DatasetExportService
from app.storage.layout import DataFolder

url, root, num = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
db, folder, data, now = Database(url), DataFolder(root), b"0" * 100, utc_now()
dataset_id = new_id()
names = ["fox", "dog"]
common = dict(created_at=now, format="png", width=8, height=8, num_bytes=100, sha256=hashlib.sha256(data).hexdigest(),
              dataset_id=dataset_id, split="train", source="synthetic")
with db.transaction() as session:
    classes = [{"name": name, "folder": name, "prompts": ["p"], "negative_prompt": ""} for name in names]
    session.add(Dataset(id=dataset_id, name="many", status="ready", seed=1, classes=classes, train_per_class=num // 2,
                        test_per_class=0, generation={}, created_at=now))
    session.flush()
    for start in range(0, num, 10_000):
        session.execute(insert(Image), [
            dict(common, id=new_id(), path=f"datasets/many/train/{names[k % 2]}/{k:06d}-{k}.png", class_index=k % 2,
                 position=k, seed=k, lineage={"prompt": f"a watercolor painting of a red fox, variation {k}"})
            for k in range(start, start + 10_000)])


class OneFile(DataFolder):
    def open(self, path):
        return super().open("one.png")


folder = OneFile(root)
folder.write("one.png", data)
Path("/proc/self/clear_refs").write_text("5")  # the peak of filling the tables is not the export's: forget it


def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) * 1024


before = resident("VmRSS")
archive = DatasetExportService(db, folder).archive(dataset_id)
sent = sum(len(part) for part in archive.parts)
growth = resident("VmHWM") - before
print(json.dumps({"growth": growth, "sent": sent, "told": archive.num_bytes}))
"""


def test_a_hundred_thousand_images_leave_in_bounded_memory(tmp_path: Path, sqlite_template: Path) -> None:
    database = tmp_path / "foxhound.db"
    shutil.copyfile(sqlite_template, database)
    command = [sys.executable, "-c", SCRIPT, f"sqlite:///{database}", str(tmp_path), str(NUM_IMAGES)]
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=600)
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["sent"] == seen["told"] > NUM_IMAGES * (100 + 92)
    assert seen["growth"] < MAX_GROWTH_BYTES, seen
