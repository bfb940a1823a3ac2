"""The tables of the pictures that jobs make images from: of requests, and of datasets. Imports no services."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, utc_now


class InitImage(Base):
    """A picture that a `generate` job makes its images from, as a PNG file; see `app.services.generations.pictures`."""

    __tablename__ = "init_images"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    # `init_image` or `mask`.
    field: Mapped[str] = mapped_column(String(16), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    data: Mapped[bytes]


class DatasetShot(Base):
    """A picture that training images of a dataset begin with, as a PNG file; see `recipes.shots` of datasets."""

    __tablename__ = "dataset_shots"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    # Of its size and its pixels as they are used.
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    data: Mapped[bytes]
