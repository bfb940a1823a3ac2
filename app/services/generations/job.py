"""The `generate` job: images of one accepted `/generate` request, made in the worker process."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.base import new_id
from app.jobs.handler import JobContext
from app.jobs.record import advance
from app.jobs.signals import Json
from app.node.client import NodeClient
from app.services.generations.records import add_generation, image_specs
from app.services.jobs.kinds import GenerateKind
from app.services.jobs.waiting import store, wait_policy
from app.storage.layout import DataFolder


class GenerateJob(GenerateKind):
    """Handler of `generate` jobs."""

    def __init__(self, folder: DataFolder, node: NodeClient) -> None:
        """Wire the handler."""
        self._folder = folder
        self._node = node

    def run(self, job: JobContext) -> dict[str, Json]:
        """Render each image in a step of its own, then record all of them at once."""
        specs = image_specs(job.spec)
        # The ids are drawn once, so that a repeated step writes the same file again.
        plan: Any = job.step("plan", lambda: {"generation": new_id(), "images": [new_id() for _ in specs]})
        made: list[Any] = []
        for k, (image_id, spec) in enumerate(zip(plan["images"], specs, strict=True)):

            def render(image_id: str = image_id, spec: Any = spec) -> Json:
                data, info = self._node.render(
                    spec.to_json(), labels=job.spec["labels"], background=False, keep_waiting=wait_policy(job)
                )
                path = self._folder.image_path(image_id, spec.output_format)
                store(job, self._folder, path, data)
                return {"info": info, "path": path}

            made.append(job.step(f"render-{k}", render))
            job.transaction(f"progress-{k}", lambda session: advance(session, job.id, 1))

        def record(session: Session) -> Json:
            paths, infos = [entry["path"] for entry in made], [entry["info"] for entry in made]
            add_generation(session, plan["generation"], job.spec, plan["images"], paths, infos, job_id=job.id)
            return None

        job.transaction("record", record)
        return {"generation_id": plan["generation"]}

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Do nothing: a generation has no chunks."""
        return None

    def cleanup(self, job: JobContext) -> None:
        """Do nothing: which files there are is known to `run` alone; a node's start removes those without a record."""
