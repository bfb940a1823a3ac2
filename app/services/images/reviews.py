"""The service that records what people decide about the images of a dataset.

A rejected image leaves the dataset's content, and with it training, exports, reports and the version; its file, its
record and its slot stay, so that the decision can be taken back. Imports no HTTP framework. Runs on a worker thread of
the API process.
"""

from app.db.models import Image
from app.db.session import Database
from app.errors import NotFound
from app.schemas.images import ImageRead
from app.services.datasets.rows import find_dataset, refuse_in_use
from app.services.images.service import image_fields


class ReviewService:
    """Records reviews."""

    def __init__(self, db: Database) -> None:
        """Use a database."""
        self._db = db

    def decide(self, dataset_id: str, image_id: str, review: str | None) -> ImageRead:
        """Record a decision, or take it back with None; the same decision again changes nothing.

        Raises:
            NotFound: There is no such dataset, or it has no such image, or its filter rejected the image.
            Conflict: A job makes or reads the dataset.
        """
        with self._db.transaction() as session:
            dataset = find_dataset(session, dataset_id, lock=True)
            image = session.get(Image, image_id)
            if image is None or image.dataset_id != dataset.id or image.decision != "kept":
                raise NotFound("The dataset has no image with this id.")
            if image.review != review:
                refuse_in_use(session, dataset)
                image.review = review
                session.flush()
            return ImageRead(**image_fields(image, {dataset.id: [entry["name"] for entry in dataset.classes]}))
