"""The `generate` job: images of one accepted `/generate` request, made in the worker process."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.base import new_id
from app.image_spec import ImageInfo, ImageSpec
from app.jobs.handler import Json
from app.jobs.record import advance
from app.jobs.run import JobRun
from app.node.client import NodeClient
from app.services.generations.records import GenerationSpec, add_generation
from app.services.jobs.kinds import GenerateKind
from app.services.jobs.waiting import patience, store
from app.storage.layout import DataFolder


class GenerateJob(GenerateKind):
    """Handler of `generate` jobs."""

    def __init__(self, folder: DataFolder, node: NodeClient) -> None:
        """Wire the handler."""
        self._folder = folder
        self._node = node

    def run(self, job: JobRun) -> dict[str, Json]:
        """Render each image in a step of its own, then record all of them at once."""
        spec = GenerationSpec.from_json(job.spec)
        specs = spec.images()
        # The ids are drawn once, so that a repeated step writes the same file again.
        plan: Any = job.step("plan", lambda: {"generation": new_id(), "images": [new_id() for _ in specs]})
        made: list[Any] = []
        for k, (image_id, image) in enumerate(zip(plan["images"], specs, strict=True)):

            def render(image_id: str = image_id, image: ImageSpec = image) -> Json:
                data, info = self._node.render(image, labels=spec.labels, background=False, keep_waiting=patience(job))
                path = self._folder.image_path(image_id, image.output_format)
                store(job, self._folder, path, data)
                return {"info": info.to_json(), "path": path}

            made.append(job.step(f"render-{k}", render))
            job.transaction(f"progress-{k}", lambda session: advance(session, job.id, 1))

        def record(session: Session) -> Json:
            paths = [entry["path"] for entry in made]
            infos = [ImageInfo.from_json(entry["info"]) for entry in made]
            add_generation(session, plan["generation"], spec, plan["images"], paths, infos, job_id=job.id)
            return None

        job.transaction("record", record)
        return {"generation_id": plan["generation"]}

    def run_chunk(self, job: JobRun, item: Json) -> Json:
        """Do nothing: a generation has no chunks."""
        return None

    def tidy(self, job: JobRun) -> None:
        """Do nothing: only `run` holds the list of files; a node removes those without a record when it starts."""
