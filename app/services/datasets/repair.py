"""The service that accepts the repair of a dataset and enqueues its job; `repair_job.py` does the work.

Imports no HTTP framework and touches no file. Runs on a worker thread of the API process, not on its event loop.
"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.jobs.queue import JobQueue
from app.schemas.jobs import JobRead
from app.services.datasets.payloads import RepairSpec
from app.services.datasets.rows import find_dataset, refuse_in_use
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.jobs.service import job_read


class DatasetRepairService:
    """Accepts repairs of datasets."""

    def __init__(self, db: Database, inference: Inference, jobs: JobQueue) -> None:
        """Wire the service."""
        self._db = db
        self._inference = inference
        self._jobs = jobs

    def submit(self, dataset_id: str, submission: Submission = ANEW) -> JobRead:
        """Accept the repair of a dataset, and enqueue its job.

        Raises:
            NotFound: There is no dataset with this id.
            Conflict: A job uses the dataset, or its images were generated with another pack than the loaded one.
        """

        def work(session: Session) -> JobRead:
            dataset = find_dataset(session, dataset_id, lock=True)
            refuse_in_use(session, dataset)
            self._refuse_other_pack(session, dataset)
            num = session.scalar(select(func.count()).where(Image.dataset_id == dataset_id)) or 0
            job = self._jobs.submit(
                session,
                kind="repair",
                spec=RepairSpec(dataset_id).to_json(),
                total=num,
                unit="images",
                priority=submission.priority,
            )
            return job_read(job)

        return accept(self._db, submission, work, location=lambda job: f"/jobs/{job.id}")

    def _refuse_other_pack(self, session: Session, dataset: Dataset) -> None:
        generated = select(Image.id).where(Image.dataset_id == dataset.id, Image.source == "synthetic").limit(1)
        pack = self._inference.pack
        if session.scalar(generated) and (dataset.pack, dataset.pack_revision) != (pack.name, pack.revision):
            raise Conflict(
                "This dataset was generated with another model pack than the loaded one. Load that pack.",
                code=ErrorCode.PACK_CHANGED,
            )
