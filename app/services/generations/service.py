"""Images from a prompt: render, store, list, read, delete; inline or as a job.

Runs in the API process: `generate` on the event loop, everything else on pool threads.
"""

import asyncio
import base64
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.access.quotas import charge, give_back
from app.access.shares import Running
from app.access.visibility import seen
from app.db.base import new_id, utc_now
from app.db.models import Generation, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import FieldError, Invalid, NotFound
from app.image_spec import MAX_SEED, RenderedImage
from app.jobs.queue import JobQueue
from app.names import equal_names
from app.schemas.generations import GenerateRequest, GenerationPage, GenerationRead, RepeatRequest
from app.schemas.jobs import GenerateJob
from app.services.generations.pictures import add_pictures
from app.services.generations.records import GenerationSpec, add_generation, generation_read, write_image
from app.services.generations.repeats import repeated
from app.services.generations.sheets import sheet_of
from app.services.generations.steps import OnPosition, OnStep
from app.services.images.sources import SourceService, to_files
from app.services.images.spec import resolve_spec, spec_faults
from app.services.inference.diffusion.rendering import SourcePictures
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.jobs.service import job_read_as
from app.services.limits import Limits, raise_if_invalid
from app.services.pagination import count_matches, fetch_page, json_bytes, matching
from app.services.store.removal import forget_generations, remove_files
from app.storage.layout import DataFolder


class Generated(NamedTuple):
    """An answered request, and the bytes of each image's file in order."""

    read: GenerationRead
    files: list[bytes]


class _Charged(NamedTuple):
    """What was charged to a caller's day."""

    day: date
    pixel_steps: int


class _Follow(NamedTuple):
    """Who is told of the images of a request, if anybody is."""

    on_step: OnStep | None
    on_position: OnPosition | None


class GenerationService:
    """Everything about generations and their images."""

    def __init__(
        self,
        db: Database,
        folder: DataFolder,
        inference: Inference,
        jobs: JobQueue,
        limits: Limits,
        sources: SourceService,
    ) -> None:
        """Wire the service; `folder` is the node's data folder."""
        self._sources = sources
        self._db = db
        self._folder = folder
        self._inference = inference
        self._jobs = jobs
        self._limits = limits
        self._drawing = Running()

    async def generate(
        self,
        request: GenerateRequest,
        caller: Caller,
        *,
        on_step: OnStep | None = None,
        on_position: OnPosition | None = None,
    ) -> Generated:
        """Render every image of the request, store them with their record, and return both.

        Args:
            request: What to make.
            caller: Whose generation it is.
            on_step: Called with each step; with previews if the request wants them.
            on_position: Called with the number of requests that go before its first image while that waits.

        Raises:
            Invalid: The loaded model or this node refuses a value.
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost: A picture to begin with cannot be used.
            RateLimited, QuotaExceeded: The caller has its share of images at once, or has used up a quota.
            ModelNotReady, QueueFull, InferenceFailed: As `Inference.render`.
            StorageFull: The disk is full; nothing is kept, and nothing is drawn where it was full before.
        """
        spec = self.resolve(request)
        limit = caller.shares.concurrent_images
        if limit is not None and spec.num_candidates > limit:
            detail = f"One caller may have {limit} images drawn at once. Ask for fewer."
            raise Invalid.field("#/num_images_per_prompt", detail, ErrorCode.TOO_MANY_IMAGES)
        with self._drawing.hold(caller.id, spec.num_candidates, limit, "images"):
            spec, pictures = await self._with_pictures(request, spec, caller)
            follow = _Follow(on_step, on_position)
            return await self._draw(spec, caller, request.response_format, follow, pictures)

    async def _with_pictures(
        self, request: GenerateRequest, spec: GenerationSpec, caller: Caller
    ) -> tuple[GenerationSpec, SourcePictures | None]:
        loaded = await self._sources.load(request, spec.image, caller)
        return (spec, None) if loaded is None else (replace(spec, image=loaded[0]), loaded[1])

    async def _draw(
        self,
        spec: GenerationSpec,
        caller: Caller,
        response_format: str,
        follow: _Follow,
        pictures: SourcePictures | None,
    ) -> Generated:
        charged = await asyncio.to_thread(self._charge, spec, caller)
        try:
            candidates = await self._render(spec, caller, follow, pictures)
            rendered = [candidates[index] for index in spec.choose([each.info for each in candidates])]
            inline = response_format == "b64_json"
            read = await asyncio.to_thread(self._store, spec, rendered, inline=inline, key_id=caller.key_id)
        except BaseException:
            if charged.pixel_steps:
                await asyncio.shield(asyncio.to_thread(self._give_back, caller, charged))
            raise
        return Generated(read, [data for data, _ in rendered])

    async def _render(
        self, spec: GenerationSpec, caller: Caller, follow: _Follow, pictures: SourcePictures | None
    ) -> list[RenderedImage]:
        renders = [
            asyncio.ensure_future(
                self._inference.render(
                    image,
                    labels=spec.labels,
                    scores_prompt=spec.best_of is not None,
                    on_step=None if follow.on_step is None else partial(follow.on_step, index),
                    on_position=follow.on_position if index == 0 else None,
                    preview=spec.preview,
                    caller=caller.id,
                    pictures=pictures,
                )
            )
            for index, image in enumerate(spec.images())
        ]
        try:
            return await asyncio.gather(*renders)
        finally:
            for render in renders:
                render.cancel()

    def _charge(self, spec: GenerationSpec, caller: Caller) -> _Charged:
        """Check that there is room, and charge the work to the caller's day."""
        self._folder.reserve.check()
        now = utc_now()
        if not caller.shares.given():
            return _Charged(now.date(), 0)
        with self._db.transaction() as session:
            return _Charged(now.date(), charge(session, caller, spec.pixel_steps, now=now))

    def _give_back(self, caller: Caller, charged: _Charged) -> None:
        with self._db.transaction() as session:
            give_back(session, caller.id, charged.day, charged.pixel_steps)

    async def submit(self, request: GenerateRequest, submission: Submission = ANEW) -> GenerateJob:
        """Accept the request as a job.

        Raises:
            Invalid: The loaded model or this node refuses a value, or the answer was wanted inline.
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost: A picture to begin with cannot be used.
        """
        if request.response_format == "b64_json":
            detail = "Images of a job are fetched by their URL. Leave response_format out."
            raise Invalid.field("#/response_format", detail, ErrorCode.B64_JSON_NOT_WITH_RESPOND_ASYNC)
        spec, pictures = await self._with_pictures(request, self.resolve(request), submission.caller)
        return await asyncio.to_thread(self._accept, spec, pictures, submission)

    def _accept(self, spec: GenerationSpec, pictures: SourcePictures | None, submission: Submission) -> GenerateJob:
        """Record the job, with its pictures in the same transaction."""
        files = {} if pictures is None else to_files(pictures)

        def work(session: Session) -> GenerateJob:
            job = self._jobs.submit(
                session,
                kind="generate",
                spec=spec.to_json(),
                total=spec.num_candidates,
                unit="images",
                priority=submission.priority,
                caller=submission.caller,
                pixel_steps=spec.pixel_steps,
            )
            add_pictures(session, job.id, files)
            return job_read_as(GenerateJob, job)

        return accept(self._db, submission, work, location=lambda job: f"/jobs/{job.id}")

    def resolve(self, request: GenerateRequest) -> GenerationSpec:
        """Return every value as it will be used, a fresh seed included.

        Raises:
            Invalid: The loaded model or this node refuses a value.
        """
        sizes, count, labels = self._inference.sizes, request.num_candidates, request.labels
        seed = request.seed if request.seed is not None else secrets.randbelow(2**32)
        image = resolve_spec(request, sizes, seed=seed)
        faults = spec_faults(image, count, sizes, self._limits, is_masked=request.mask is not None)
        if count > self._limits.num_images_per_prompt:
            detail = f"This must be at most {self._limits.num_images_per_prompt} on this node."
            field = "num_images_per_prompt" if request.best_of is None else "best_of"
            faults.append(FieldError(f"#/{field}", detail, ErrorCode.TOO_MANY_IMAGES))
        if count < request.num_images_per_prompt:
            detail = "This must be at least num_images_per_prompt."
            faults.append(FieldError("#/best_of", detail, ErrorCode.BEST_OF_TOO_SMALL))
        if labels and equal_names(labels):
            faults.append(FieldError("#/labels", "The labels must all be different.", ErrorCode.DUPLICATE_LABELS))
        if seed + count - 1 > MAX_SEED:
            detail = f"seed + images - 1 must be at most {MAX_SEED}."
            faults.append(FieldError("#/seed", detail, ErrorCode.SEED_TOO_LARGE))
        raise_if_invalid(faults)
        return GenerationSpec(
            image, request.num_images_per_prompt, labels, request.preview, request.best_of, request.grid
        )

    def page(
        self, limit: int, cursor: str | None, caller: Caller, *, created_after: datetime | None = None
    ) -> GenerationPage:
        """Return a page of the generations that a caller sees, newest first."""
        query = select(Generation).where(seen(Generation.key_id, caller))
        query = matching(query, newer=(Generation.created_at, created_after))
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, query, Generation.id, limit, cursor, weigh=_weight)
            images = _images_of(session, [row.id for row in rows])
            items = [generation_read(row, images[row.id]) for row in rows]
            return GenerationPage(items=items, next_cursor=next_cursor, total=count_matches(session, query))

    def read(self, generation_id: str) -> GenerationRead:
        """Return one generation.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            row = _generation(session, generation_id)
            return generation_read(row, _images_of(session, [row.id])[row.id])

    def repeat(self, generation_id: str, overrides: RepeatRequest) -> dict[str, Any]:
        """Return the fields of the request that repeats a generation with other settings, not validated yet.

        Raises:
            NotFound: There is none with this id.
        """
        return repeated(self._db, generation_id, overrides)

    def delete(self, generation_id: str) -> None:
        """Delete a generation, its images and their files.

        Raises:
            NotFound: There is none with this id.
        """
        paths = self._folder.reserve.spend(lambda: self._forget(generation_id))
        remove_files(self._db, self._folder, paths)

    def _forget(self, generation_id: str) -> list[str]:
        """Delete the records of a generation and its images, and return the paths of their files."""
        with self._db.transaction() as session:
            row = session.get(Generation, generation_id, with_for_update=True)
            if row is None:
                raise _no_generation()
            return forget_generations(session, [row.id])

    def _store(
        self, spec: GenerationSpec, rendered: Sequence[RenderedImage], *, inline: bool, key_id: str | None
    ) -> GenerationRead:
        image_ids = [new_id() for _ in rendered]
        paths = [
            write_image(self._folder, image_id, image.data, spec.image.output_format)
            for image_id, image in zip(image_ids, rendered, strict=True)
        ]
        try:
            with self._db.transaction() as session:
                infos = [image.info for image in rendered]
                row, images = add_generation(
                    session, new_id(), spec, image_ids, paths, infos, job_id=None, key_id=key_id
                )
                read = generation_read(row, images)
        except BaseException:
            for path in paths:
                self._folder.delete(path)
            raise
        if inline:
            for image_read, image in zip(read.images, rendered, strict=True):
                image_read.b64_json = base64.b64encode(image.data).decode()
            if read.grid is not None:
                sheet = sheet_of([image.data for image in rendered], spec.image.width, spec.image.height)
                read.grid.b64_json = base64.b64encode(sheet).decode()
        return read


def _weight(row: Generation) -> int:
    """Return about how many bytes a generation takes in a page: each image repeats every label."""
    num_images: int = row.parameters["num_images_per_prompt"]
    return json_bytes(row.parameters) * (1 + num_images)


def _generation(session: Session, generation_id: str) -> Generation:
    row = session.get(Generation, generation_id)
    if row is None:
        raise _no_generation()
    return row


def _no_generation() -> NotFound:
    return NotFound("There is no generation with this id.")


def _images_of(session: Session, generation_ids: Sequence[str]) -> dict[str, list[Image]]:
    found: dict[str, list[Image]] = {generation_id: [] for generation_id in generation_ids}
    query = select(Image).where(Image.generation_id.in_(generation_ids)).order_by(Image.position)
    for image in session.scalars(query):
        found[image.generation_id or ""].append(image)
    return found
