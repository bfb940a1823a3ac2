"""The row of a dataset, found or refused: what both processes ask of it before they change or read the dataset.

Imports neither inference nor the job queue, so that the worker process can use it. Called inside transactions.
"""

from sqlalchemy.orm import Session, joinedload

from app.db.models import ACTIVE_DATASET_STATUSES, Dataset
from app.error_codes import ErrorCode
from app.errors import Conflict, NotFound
from app.image_spec import DrawnBy
from app.services.datasets.slots import in_use, job_on

_IN_USE = "A job works on this dataset. Wait for it, or cancel it first."


def find_dataset(session: Session, dataset_id: str, *, lock: bool = False, with_texts: bool = False) -> Dataset:
    """Return the row of a dataset.

    Args:
        session: The transaction to read in.
        dataset_id: The dataset's id.
        lock: Whether to lock the row until the transaction ends.
        with_texts: Whether to read the prompts and variables too; not together with `lock`.

    Raises:
        NotFound: There is no dataset with this id.
    """
    options = [joinedload(Dataset.texts)] if with_texts else []
    dataset = session.get(Dataset, dataset_id, with_for_update=lock or None, options=options)
    if dataset is None:
        raise NotFound("There is no dataset with this id.")
    return dataset


def pack_changed() -> Conflict:
    """Return the error for work that has to generate images with the model that generated the dataset."""
    return Conflict(
        "This dataset was generated with another model, or with other weights of it, than this node has. Serve that "
        "model: GET /datasets/{id} names it.",
        code=ErrorCode.PACK_CHANGED,
    )


def refuse_other_model(dataset: Dataset, drawn_by: DrawnBy | None) -> None:
    """Refuse to generate more images of a dataset with another model than the one that generated it.

    Args:
        dataset: The row.
        drawn_by: What would draw them on this node; None: it has not the model of the dataset.

    Raises:
        Conflict: `pack_changed`.
    """
    if drawn_by is None or (dataset.pack, dataset.pack_revision) != drawn_by:
        raise pack_changed()


def refuse_in_use(session: Session, dataset: Dataset) -> None:
    """Refuse to change a dataset that a job makes or reads.

    Raises:
        Conflict: `dataset_in_use`.
    """
    refuse_generating(dataset)
    if job_id := job_on(session, dataset.id, of=("train", "repair")):
        raise in_use(_IN_USE, job_id)


def refuse_generating(dataset: Dataset) -> None:
    """Refuse to change a dataset whose images are being made.

    Raises:
        Conflict: `dataset_in_use`.
    """
    if dataset.status in ACTIVE_DATASET_STATUSES:
        raise in_use(_IN_USE, dataset.job_id)
