"""The `generate` job: generates the images of one accepted `/generate` request.

Imports no model: the node's engine renders. Runs in the worker process, on the thread of the job.
"""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Job
from app.image_spec import ImageSpec
from app.jobs.handler import JobContext
from app.jobs.record import advance
from app.jobs.signals import Json
from app.node.client import NodeClient
from app.services.generations.payloads import GenerationPlan, StoredImage
from app.services.generations.records import GenerationSpec, add_generation
from app.services.jobs.kinds import GenerateKind
from app.services.jobs.waiting import store, wait_policy
from app.storage.layout import DataFolder


class GenerateJob(GenerateKind):
    """Handler of `generate` jobs."""

    def __init__(self, folder: DataFolder, node: NodeClient) -> None:
        """Use the data folder and the node's engine."""
        self._folder = folder
        self._node = node

    def run(self, job: JobContext) -> dict[str, Json]:
        """Render each image in a step of its own, then record all of them in one transaction."""
        spec = GenerationSpec.from_json(job.spec)
        specs = spec.images()
        # The ids are recorded, so that a repeated step writes the same file again.
        plan = GenerationPlan.from_json(
            job.step("plan", lambda: GenerationPlan(new_id(), [new_id() for _ in specs]).to_json())
        )
        stored = []
        for k, (image_id, image) in enumerate(zip(plan.images, specs, strict=True)):

            def render(image_id: str = image_id, image: ImageSpec = image) -> Json:
                return self._render(job, image_id, image, spec.labels).to_json()

            stored.append(StoredImage.from_json(job.step(f"render-{k}", render)))
            job.transaction(f"progress-{k}", lambda session: advance(session, job.id, 1))

        def record(session: Session) -> Json:
            paths, infos = [image.path for image in stored], [image.info for image in stored]
            key_id = session.get_one(Job, job.id).key_id
            add_generation(session, plan.generation, spec, plan.images, paths, infos, job_id=job.id, key_id=key_id)
            return None

        job.transaction("record", record)
        return {"generation_id": plan.generation}

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Do nothing: a generation has no chunks."""
        return None

    def cleanup(self, job: JobContext) -> None:
        """Do nothing: `run` alone has the ids of the files; `recovery.sweep` moves files without a record."""

    def _render(self, job: JobContext, image_id: str, image: ImageSpec, labels: Sequence[str] | None) -> StoredImage:
        data, info = self._node.render(
            image, labels=labels, background=False, keep_waiting=wait_policy(job), caller=job.caller
        )
        path = self._folder.image_path(image_id, image.output_format)
        store(job, self._folder, path, data)
        return StoredImage(info, path)
