"""A node whose dataset jobs run in the calling thread, against the node's own socket."""

from typing import Any

from app.db.session import Database
from app.jobs import record
from app.jobs.handler import JobHandler
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.node import Node

CLASSES = [{"name": name, "prompts": [f"{{style}} a {name} {{place}}"]} for name in ("fox", "dog")]
RECIPE = {
    "seed": 7,
    "classes": CLASSES,
    "variables": {"style": ["a photo of", "a sketch of"], "place": ["", "at night", "in snow"]},
    "generation": {"guidance_scale": {"min": 1.0, "max": 5.0}, "num_inference_steps": 1},
}


class Workbench:
    """A node, and the handler that runs its dataset jobs in place of a worker."""

    def __init__(self, node: Node) -> None:
        self.http = node.http
        self.data_dir = node.settings.data_dir
        self.models = node.models
        self.db = Database(node.settings.resolved_database_url)
        self.client = NodeClient(node.settings.engine_socket)
        self.images = DatasetImages(self.db, DataFolder(self.data_dir), self.client, chunk_size=3)
        self.handler: JobHandler = DatasetJob(self.images)

    def work(self, job_id: str) -> dict[str, Any]:
        """Run a job to its end and return its result."""
        with self.db.transaction() as session:
            record.begin(session, job_id)
        result = run_job(self.db, job_id, self.handler)
        with self.db.transaction() as session:
            record.finish(session, job_id, self.handler.on_end, completed=True, result=result)
        assert result is not None
        return result

    def make(self, name: str, **changes: object) -> dict[str, Any]:
        answer = self.http.post("/datasets", json={"name": name, "test_per_class": 0, **RECIPE, **changes})
        assert answer.status_code == 202, answer.text
        self.work(answer.json()["job_id"])
        return self.read(answer.json()["id"])

    def extend(self, read: dict[str, Any], **more: int) -> dict[str, Any]:
        answer = self.http.post(f"/datasets/{read['id']}/extend", json=more)
        assert answer.status_code == 202, answer.text
        assert answer.headers["location"] == f"/datasets/{read['id']}"
        assert (answer.json()["status"], answer.json()["job_id"] != read["job_id"]) == ("queued", True)
        extended: dict[str, Any] = answer.json()
        return extended

    def read(self, dataset_id: str) -> dict[str, Any]:
        read: dict[str, Any] = self.http.get(f"/datasets/{dataset_id}").json()
        return read

    def files(self, name: str) -> dict[str, bytes]:
        folder = self.data_dir / "datasets" / name
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}

    def close(self) -> None:
        self.client.close()
        self.db.close()
