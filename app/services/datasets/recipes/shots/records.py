"""The shots of datasets in the database: PNG files of the datasets' size.

Imports no engine. Runs in the API process and in the worker, on the caller's thread.
"""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Dataset
from app.db.picture_tables import DatasetShot
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.image_spec import ImageSpec


def add_shots(session: Session, dataset: Dataset, files: Mapping[str, bytes]) -> None:
    """Add a new dataset's shots, PNG files by the hash of their pixels."""
    session.add_all(DatasetShot(dataset_id=dataset.id, sha256=sha256, data=data) for sha256, data in files.items())


def shot_files(db: Database, dataset_id: str, spec: ImageSpec) -> dict[str, bytes]:
    """Return the picture that an image of a dataset begins with, by the name of its field; empty without one.

    Raises:
        Conflict: The dataset does not have it: it was deleted.
    """
    if spec.init_image is None:
        return {}
    with db.snapshot() as session:
        query = select(DatasetShot.data).where(DatasetShot.dataset_id == dataset_id)
        data = session.scalar(query.where(DatasetShot.sha256 == spec.init_image.sha256))
    if data is None:
        detail = "The dataset does not have the picture that an image begins with. Create the dataset again."
        raise Conflict(detail, code=ErrorCode.DATASET_GONE)
    return {"init_image": data}
