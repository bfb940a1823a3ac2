"""What keeps a generated image from removal by age or size. This module is the only place that defines it.

Images of datasets are never candidates: they have a dataset instead of a generation. Models, evaluations and reports
refer to images of datasets only, and `/classify` and `/clip-score` read an image whole before they use it. What remains
are jobs that have not ended: the job that made the generation, and any job whose spec contains the id of an image. A
feature that lets another record refer to a generated image adds that record here.

A submission that names a generated image selects its generation with `with_for_update(read=True, key_share=True)` in
the transaction that adds the job. Postgres then excludes that a prune removes the generation between the two; on
SQLite, writing transactions exclude each other anyway. Imports no job and no engine. Runs on the caller's thread.
"""

import re
from collections.abc import Sequence

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from app.db.models import Generation, Image, Job, active_jobs

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Jobs whose specs are read in one statement.
_PAGE = 500


class KeptImages:
    """Finds the generations that must stay; one object for one prune, used by one thread.

    The spec of a job never changes, so the ids in it are read once, however many pages of generations a prune has.
    """

    def __init__(self) -> None:
        """Begin with no job read."""
        self._named_by: dict[str, frozenset[str]] = {}

    def among(self, session: Session, generation_ids: Sequence[str]) -> set[str]:
        """Return those of these generations that must stay.

        Args:
            session: If the others are to be removed, a transaction that has locked the generations' rows.
            generation_ids: At most some hundreds.
        """
        active = set(session.scalars(select(Job.id).where(active_jobs())))
        self._read_specs(session, active)
        named = frozenset().union(*self._named_by.values())
        rows = session.execute(
            select(Generation.id, Generation.job_id, Image.id.label("image_id"))
            .outerjoin(Image, Image.generation_id == Generation.id)
            .where(Generation.id.in_(generation_ids))
        )
        return {row.id for row in rows if row.job_id in active or row.image_id in named}

    def _read_specs(self, session: Session, active: set[str]) -> None:
        """Read the specs of jobs that are new, and forget jobs that have ended."""
        self._named_by = {job_id: named for job_id, named in self._named_by.items() if job_id in active}
        unread = sorted(active - self._named_by.keys())
        for start in range(0, len(unread), _PAGE):
            query = select(Job.id, cast(Job.spec, Text).label("spec")).where(Job.id.in_(unread[start : start + _PAGE]))
            for row in session.execute(query):
                self._named_by[row.id] = frozenset(_ID.findall(row.spec or ""))
