"""The kinds of background work as both processes know them: a name, a queue, and how its end is followed.

The work itself is in `generate_job.py`, `dataset_job.py` and `train_job.py`, in the worker process alone.
"""

from sqlalchemy.orm import Session

from app.db.models import Dataset, Job


class GenerateKind:
    """Images of one `/generate` request; the queue is its own, so that it never waits behind datasets."""

    kind = "generate"
    queue = "generate"

    def on_end(self, session: Session, job: Job) -> None:
        """Do nothing: a generation exists or it does not."""


class DatasetKind:
    """The images of a dataset."""

    kind = "dataset"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Let the dataset end as its job did."""
        _end_dataset(session, job)


class TrainKind:
    """Training on a dataset, which the job may have to make first."""

    kind = "train"
    queue = "jobs"

    def on_end(self, session: Session, job: Job) -> None:
        """Let a dataset that this job was to make end as the job did."""
        if job.spec["dataset"] is not None:
            _end_dataset(session, job)


JOB_KINDS = (GenerateKind(), DatasetKind(), TrainKind())


def _end_dataset(session: Session, job: Job) -> None:
    """Give a dataset whose images are not all made yet the status of its failed or cancelled job."""
    dataset = session.get(Dataset, job.spec["dataset_id"])
    if dataset is not None and dataset.status in ("queued", "generating") and job.status in ("failed", "cancelled"):
        dataset.status = job.status
