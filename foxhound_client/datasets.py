"""Methods for datasets: create, read, upload, extend, repair, export, delete."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Unpack

from foxhound_client import once
from foxhound_client.downloads import OnProgress, download
from foxhound_client.errors import FoxhoundError
from foxhound_client.models import (
    DatasetPage,
    DatasetPlan,
    DatasetRead,
    DatasetRecipeRead,
    DatasetReportRead,
    ImagePage,
    ImageRead,
    RepairJob,
    ShardsRead,
    Split,
    UploadedFile,
    UploadRead,
)
from foxhound_client.once import Ensured, json_request, key_of, path_of
from foxhound_client.operations import Group, Transport, iteration, operation
from foxhound_client.pictures import Picture, batches
from foxhound_client.requests import DatasetCreate, DatasetExtend
from foxhound_client.sending import fetch, key_header, send
from foxhound_client.steps import Emit, Flow, Items, Request


class Datasets(Group[Transport]):
    """Datasets of the service."""

    @operation
    def create(self, /, *, idempotency_key: str | None = None, **body: Unpack[DatasetCreate]) -> Flow[DatasetRead]:
        """Create a dataset; a job generates its images. `ensure` creates it once however often a program runs.

        Args:
            idempotency_key: The same key returns the same dataset for a day; default: a new key.
            **body: The members of `DatasetCreate`.
        """
        request = json_request("POST", "/datasets", body, headers=key_header(idempotency_key))
        return (yield from fetch(self._policy, request, DatasetRead))

    @operation
    def ensure(self, /, *, idempotency_key: str | None = None, **body: Unpack[DatasetCreate]) -> Flow[Ensured]:
        """Create a dataset unless the same request has created it before.

        Args:
            idempotency_key: Default: a hash of the request.
            **body: The members of `DatasetCreate`.
        """
        return (yield from once.ensure(self._policy, body, idempotency_key))

    @operation
    def created_before(self, refused: FoxhoundError, /, **body: Unpack[DatasetCreate]) -> Flow[DatasetRead | None]:
        """Return the dataset that the same request created before; None unless its name is why it was refused."""
        return (yield from once.created_before(self._policy, body, refused))

    @operation
    def plan(self, /, **body: Unpack[DatasetCreate]) -> Flow[DatasetPlan]:
        """Return what `create` would generate, and how long it takes; generate nothing."""
        return (yield from once.plan(self._policy, body))

    @operation
    def get(self, dataset_id: str) -> Flow[DatasetRead]:
        """Return a dataset by its id."""
        return (yield from fetch(self._policy, Request("GET", path_of("datasets", dataset_id)), DatasetRead))

    @operation
    def find(self, id_or_name: str) -> Flow[DatasetRead]:
        """Return a dataset by its id or name."""
        dataset: DatasetRead = yield from once.find(self._policy, "datasets", id_or_name, DatasetRead, DatasetPage)
        return dataset

    @operation
    def wait(self, dataset_id: str, *, on_progress: OnProgress | None = None) -> Flow[DatasetRead]:
        """Wait until a dataset's last job has succeeded; return the dataset, at once if it is ready or empty.

        Args:
            dataset_id: The dataset's id or name.
            on_progress: Called with what is done, the total, and `images`.

        Raises:
            JobFailed: The job failed or was cancelled; `jobs.retry` makes what is missing.
        """
        return (yield from once.filled(self._policy, dataset_id, on_progress))

    @iteration
    def list(self) -> Items[DatasetRead]:
        """Yield every dataset, newest first."""
        query = {"limit": str(once.PAGE_SIZE)}
        while True:
            page = yield from fetch(self._policy, Request("GET", "/datasets", query=query), DatasetPage)
            for dataset in page.items:
                yield Emit(dataset)
            if not page.next_cursor:
                return
            query["cursor"] = page.next_cursor

    @operation
    def recipe(self, dataset_id: str) -> Flow[DatasetRecipeRead]:
        """Return the whole recipe of a dataset."""
        request = Request("GET", f"{path_of('datasets', dataset_id)}/recipe")
        return (yield from fetch(self._policy, request, DatasetRecipeRead))

    @operation
    def report(self, dataset_id: str) -> Flow[DatasetReportRead]:
        """Return figures on a dataset's images: balance, duplicates, leakage, CLIP scores."""
        request = Request("GET", f"{path_of('datasets', dataset_id)}/report", headers={"Accept": "application/json"})
        return (yield from fetch(self._policy, request, DatasetReportRead))

    @operation
    def extend(
        self, dataset_id: str, /, *, idempotency_key: str | None = None, **body: Unpack[DatasetExtend]
    ) -> Flow[DatasetRead]:
        """Generate more images by the dataset's own recipe.

        Args:
            dataset_id: The dataset's id.
            idempotency_key: Default: a hash of the request and of the dataset's last job. So a repeated call adds
                nothing while its job runs, and as many images again after it has ended.
            **body: The members of `DatasetExtend`.
        """
        path = path_of("datasets", dataset_id)
        dataset: DatasetRead = yield from fetch(self._policy, Request("GET", path), DatasetRead)
        path = f"{path_of('datasets', dataset.id)}/extend"
        key = idempotency_key or key_of(self._policy.url, {"path": path, "after": dataset.job_id, **body})
        request = json_request("POST", path, body, headers={"Idempotency-Key": key})
        return (yield from fetch(self._policy, request, DatasetRead))

    @operation
    def plan_extension(self, dataset_id: str, /, **body: Unpack[DatasetExtend]) -> Flow[DatasetPlan]:
        """Return what `extend` would generate; generate nothing."""
        path = f"{path_of('datasets', dataset_id)}/extend"
        return (
            yield from fetch(self._policy, json_request("POST", path, body, query={"dry_run": "true"}), DatasetPlan)
        )

    @operation
    def repair(self, dataset_id: str, *, idempotency_key: str | None = None) -> Flow[RepairJob]:
        """Check every file of a dataset and generate lost images again, in a job."""
        path = f"{path_of('datasets', dataset_id)}/repair"
        request = Request("POST", path, headers=key_header(idempotency_key))
        return (yield from fetch(self._policy, request, RepairJob))

    @operation
    def upload(
        self,
        dataset_id: str,
        files: Iterable[Picture],
        *,
        class_name: str,
        split: Split = "train",
        on_progress: OnProgress | None = None,
    ) -> Flow[UploadRead]:
        """Add pictures to a dataset, in calls of at most 100 files and 64 MB.

        A call that is repeated after a lost answer adds nothing twice: its files come back as refused, with
        `duplicate_of` naming the image that the first try has stored.

        Args:
            dataset_id: The dataset's id.
            files: Paths, bytes or opened files; any number.
            class_name: The class that they show.
            split: `train`, `validation` or `test`.
            on_progress: Called after each call with the number of files sent, 0 as total, and the unit `files`; the
                total is that of `files` if it has a length.
        """
        total = len(files) if isinstance(files, Sequence) else 0
        done: list[UploadedFile] = []
        for batch in batches("files", files):
            form: dict[str, Sequence[str]] = {"class_name": [class_name], "split": [split]}
            request = Request("POST", f"{path_of('datasets', dataset_id)}/images", form=form, files=batch)
            answer: UploadRead = yield from fetch(self._policy, request, UploadRead)
            first = len(done)
            done += [file.model_copy(update={"index": first + file.index}) for file in answer.files]
            if on_progress:
                on_progress(len(done), total, "files")
        num_refused = sum(file.refused is not None for file in done)
        return UploadRead(num_accepted=len(done) - num_refused, num_refused=num_refused, files=done)

    @iteration
    def images(self, dataset_id: str, *, class_name: str | None = None, split: Split | None = None) -> Items[ImageRead]:
        """Yield the images of a dataset, of one class or split if given."""
        given = {"class": class_name, "split": split}
        query = {"limit": str(once.PAGE_SIZE), **{name: value for name, value in given.items() if value}}
        path = f"{path_of('datasets', dataset_id)}/images"
        while True:
            page = yield from fetch(self._policy, Request("GET", path, query=query), ImagePage)
            for image in page.items:
                yield Emit(image)
            if not page.next_cursor:
                return
            query["cursor"] = page.next_cursor

    @operation
    def archive(
        self,
        dataset_id: str,
        target: str | os.PathLike[str],
        *,
        split: Split | None = None,
        only_if_changed: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Flow[Path]:
        """Download a dataset as a zip file; an interrupted download is resumed by the next call.

        Args:
            dataset_id: The dataset's id.
            target: The file to write.
            split: One split alone; default: all.
            only_if_changed: Keep an existing file if it is still the same; `target.etag` says which the file is.
            on_progress: Called with bytes so far, bytes in total, and `bytes`.
        """
        path = f"{path_of('datasets', dataset_id)}/{f'archive/{split}.zip' if split else 'archive.zip'}"
        return (yield from download(self._policy, path, target, on_progress, only_if_changed=only_if_changed))

    @operation
    def coco(self, dataset_id: str, target: str | os.PathLike[str], *, split: Split | None = None) -> Flow[Path]:
        """Download the description of a dataset in the form of COCO."""
        query = {"split": split} if split else None
        path = f"{path_of('datasets', dataset_id)}/coco.json"
        return (yield from download(self._policy, path, target, None, query))

    @operation
    def croissant(self, dataset_id: str) -> Flow[bytes]:
        """Return the description of a dataset as Croissant's JSON-LD, in bytes."""
        request = Request("GET", f"{path_of('datasets', dataset_id)}/croissant.json")
        return (yield from send(self._policy, request)).content

    @operation
    def shards(self, dataset_id: str, *, samples_per_shard: int | None = None) -> Flow[ShardsRead]:
        """Return the list of a dataset's WebDataset shards."""
        query = {} if samples_per_shard is None else {"samples_per_shard": str(samples_per_shard)}
        request = Request("GET", f"{path_of('datasets', dataset_id)}/shards", query=query)
        return (yield from fetch(self._policy, request, ShardsRead))

    @operation
    def shard(
        self,
        dataset_id: str,
        index: int,
        target: str | os.PathLike[str],
        *,
        samples_per_shard: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> Flow[Path]:
        """Download one shard, a tar file."""
        query = {} if samples_per_shard is None else {"samples_per_shard": str(samples_per_shard)}
        path = f"{path_of('datasets', dataset_id)}/shards/{index}.tar"
        return (yield from download(self._policy, path, target, on_progress, query))

    @operation
    def delete(self, dataset_id: str) -> Flow[None]:
        """Delete a dataset and its images."""
        yield from send(self._policy, Request("DELETE", path_of("datasets", dataset_id)))
