"""What a `generate` job records between its steps. Its spec is the settled parameters of the request.

Each type has one `from_json` and one `to_json`. Runs in the worker process.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from app.image_spec import ImageInfo
from app.jobs.signals import Json


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """The ids of the generation and of its images, drawn once."""

    generation: str
    images: list[str]

    @classmethod
    def from_json(cls, recorded: Mapping[str, Json]) -> "GenerationPlan":
        """Read the record of step `plan`."""
        return cls(recorded["generation"], recorded["images"])

    def to_json(self) -> dict[str, Json]:
        """Return the record of step `plan`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image whose file is written.

    Attributes:
        info: What is recorded of it.
        path: Relative to the data folder.
    """

    info: ImageInfo
    path: str

    @classmethod
    def from_json(cls, recorded: Mapping[str, Json]) -> "StoredImage":
        """Read the record of a step `render-<k>`."""
        return cls(ImageInfo.from_json(recorded["info"]), recorded["path"])

    def to_json(self) -> dict[str, Json]:
        """Return the record of a step `render-<k>`."""
        return {"info": self.info.to_json(), "path": self.path}
