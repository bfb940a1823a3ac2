"""The `generate` job: generates the images of one accepted `/generate` request.

Imports no model: the node's engine renders. Runs in the worker process, on the thread of the job.
"""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Generation, Job
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.image_spec import ImageSpec
from app.jobs.handler import JobContext
from app.jobs.record import advance
from app.jobs.signals import Json
from app.node.client import NodeClient
from app.node.protocol import PreviewsOf
from app.services.generations.payloads import GenerationPlan, StoredImage
from app.services.generations.pictures import pictures_of, remove_pictures
from app.services.generations.records import GenerationSpec, add_generation
from app.services.jobs.kinds import GenerateKind
from app.services.jobs.wait_policy import store, wait_policy
from app.storage.layout import DataFolder


class GenerateJob(GenerateKind):
    """Handler of `generate` jobs."""

    def __init__(self, db: Database, folder: DataFolder, node: NodeClient) -> None:
        """Use the records, the data folder and the node's engine."""
        self._db = db
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
        pictures = self._pictures(job, spec)
        stored = []
        for k, (image_id, image) in enumerate(zip(plan.images, specs, strict=True)):
            previews = None if spec.preview is None else PreviewsOf(job.id, k, spec.preview)

            def render(
                image_id: str = image_id, image: ImageSpec = image, previews: PreviewsOf | None = previews
            ) -> Json:
                return self._render(job, image_id, image, spec, pictures, previews).to_json()

            stored.append(StoredImage.from_json(job.step(f"render-{k}", render)))
            job.transaction(f"progress-{k}", lambda session: advance(session, job.id, 1))

        def record(session: Session) -> Json:
            paths, infos = [stored[k].path for k in kept], [stored[k].info for k in kept]
            ids, key_id = [plan.images[k] for k in kept], session.get_one(Job, job.id).key_id
            add_generation(session, plan.generation, spec, ids, paths, infos, job_id=job.id, key_id=key_id)
            remove_pictures(session, job.id)
            return None

        kept = spec.choose([image.info for image in stored])
        job.transaction("record", record)
        for k in set(range(len(stored))) - set(kept):
            self._folder.delete(stored[k].path)
        return {"generation_id": plan.generation}

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Do nothing: a generation has no chunks."""
        return None

    def cleanup(self, job: JobContext) -> None:
        """Do nothing: `run` alone has the ids of the files; `recovery.sweep` moves files without a record."""

    def _pictures(self, job: JobContext, spec: GenerationSpec) -> dict[str, bytes]:
        """Return the pictures that the images are made from; none once all images are recorded.

        Raises:
            Conflict: They are not kept any more.
        """
        if spec.image.init_image is None:
            return {}
        with self._db.snapshot() as session:
            found = pictures_of(session, job.id)
            is_recorded = session.scalar(select(Generation.id).where(Generation.job_id == job.id)) is not None
        if not found and not is_recorded:
            detail = "The pictures of this job are not kept any more. Send the request again."
            raise Conflict(detail, code=ErrorCode.IMAGE_NOT_FOUND)
        return found

    def _render(
        self,
        job: JobContext,
        image_id: str,
        image: ImageSpec,
        spec: GenerationSpec,
        pictures: Mapping[str, bytes],
        previews: PreviewsOf | None,
    ) -> StoredImage:
        data, info = self._node.render(
            image,
            labels=spec.labels,
            scores_prompt=spec.best_of is not None,
            background=False,
            keep_waiting=wait_policy(job),
            caller=job.caller,
            pictures=pictures,
            previews=previews,
            job_id=job.id,
        )
        path = self._folder.image_path(image_id, image.output_format)
        store(job, self._folder, path, data)
        return StoredImage(info, path)
