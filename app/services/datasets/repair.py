"""Accepting the repair of a dataset: a job that looks at each of its files. The work is in `repair_job.py`."""

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
    """Lets datasets be repaired."""

    def __init__(self, db: Database, inference: Inference, jobs: JobQueue) -> None:
        """Wire the service."""
        self._db = db
        self._inference = inference
        self._jobs = jobs

    def submit(self, dataset_id: str, submission: Submission = ANEW) -> JobRead:
        """Accept the repair of a dataset, and enqueue its job.

        Raises:
            NotFound: There is no such dataset.
            Conflict: A job works on it, or another pack is loaded than the one that drew it.
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
                "Another model pack is loaded than the one that drew this dataset. Load that pack.",
                code=ErrorCode.PACK_CHANGED,
            )
