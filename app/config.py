"""Settings: the only reader of the environment.

Everything below `services/` receives plain values from here and never this class.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# A Unix socket's path has at most 107 bytes on Linux, its file name included.
MAX_RUN_DIR_CHARS = 90

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class Settings(BaseSettings):
    """Every setting of Foxhound; the environment variable is the name in capitals behind `FOXHOUND_`."""

    model_config = SettingsConfigDict(
        env_prefix="FOXHOUND_",
        env_file=".env",
        env_file_encoding="utf-8-sig",  # an editor's BOM is no part of the first variable's name
        extra="ignore",
        populate_by_name=True,
        str_strip_whitespace=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path("data"), description="Folder of images, datasets, models and the SQLite file.")
    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("database_url", "FOXHOUND_DATABASE_URL", "DATABASE_URL"),
        description="sqlite:///... or postgresql://...; default: SQLite in the data folder. DATABASE_URL works too.",
    )
    run_dir: Path | None = Field(None, description="Folder of the node's socket; default: `run` in the data folder.")

    model_pack: Literal["demo", "sd15"] = Field("demo", description="Which set of models is served.")
    models_dir: Path | None = Field(None, description="Folder of fetched packs; default: `packs` in the data folder.")
    diffusion_dir: Path | None = Field(
        None, description="A local StableDiffusionPipeline folder instead of the pack's."
    )
    clip_dir: Path | None = Field(None, description="A local CLIPModel folder instead of the pack's.")
    classifier_dir: Path | None = Field(None, description="A local classifier folder instead of the pack's.")
    backbone_dir: Path | None = Field(None, description="A local training backbone folder instead of the pack's.")
    device: Device = Field("auto", description="auto | cpu | cuda | cuda:n; auto takes a GPU where there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the diffusion model; auto: float16 on CUDA, float32 on the CPU, "
        "where bfloat16 may be twice as fast.",
    )
    deterministic: bool | None = Field(
        None,
        description="Whether an image's bytes never depend on what else runs; default: yes on the CPU, no on a GPU; "
        "there it gives every forward eight rows.",
    )
    gpu_graphs: bool = Field(
        True, description="Whether a GPU records the denoising forwards as CUDA graphs and replays them."
    )
    gpu_compile: bool = Field(
        False,
        description="Whether a GPU's diffusion model is compiled: faster images, a slower start; needs a C compiler.",
    )
    num_threads: int | None = Field(
        None, ge=1, le=256, description="CPU threads of a model's forward; default: all cores."
    )

    max_queue_size: int = Field(
        64, ge=1, le=10_000, description="Engine requests that may wait before new ones get 503."
    )
    max_queued_jobs: int = Field(
        10_000, ge=1, le=1_000_000, description="Background jobs that may wait, or be paused, before new ones get 503."
    )
    max_prompt_chars: int = Field(2_000, ge=1, le=2_000, description="Longest prompt, in characters.")
    max_inference_steps: int = Field(150, ge=1, le=150, description="Most denoising steps of an image.")
    max_images_per_prompt: int = Field(16, ge=1, le=16, description="Most images of one request.")
    max_work_pixel_steps: int = Field(
        2_000_000_000, ge=1_000_000, description="Most images x steps x width x height of one request."
    )
    max_dataset_images: int = Field(100_000, ge=2, le=100_000, description="Most images of one dataset.")
    max_upload_bytes: int = Field(20_000_000, ge=1_000, le=20_000_000, description="Largest image file taken.")
    max_upload_pixels: int = Field(40_000_000, ge=4_096, le=40_000_000, description="Most pixels of an image taken.")
    max_body_bytes: int = Field(30_000_000, ge=10_000, le=30_000_000, description="Largest JSON body.")
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description="Longest silence of a client that sends a body or reads an answer, in seconds; "
        "then it is given up.",
    )
    min_upload_rate: int = Field(
        1_000, ge=1, le=1_000_000_000, description="Least rate of a request's body, in bytes a second on average."
    )
    head_timeout_s: float = Field(
        30.0, gt=0, le=3_600, description="Time within which the head of a request must arrive, in seconds."
    )
    max_connections: int = Field(
        1_000, ge=1, le=100_000, description="Most open connections; idle ones give way to new ones."
    )
    max_connections_per_address: int = Field(
        400,
        ge=0,
        le=100_000,
        description="Most open connections of one address (IPv6: of one /64 network); 0, no such limit, behind a "
        "reverse proxy.",
    )

    reserve_mb: int = Field(
        256,
        ge=0,
        le=1_000_000,
        description="Megabytes kept free on the disk: with less, new work gets 507, deletions go on; 0 keeps none.",
    )

    chunk_size: int = Field(8, ge=1, le=64, description="Images of a dataset that are made and recorded together.")
    worker_ttl_s: float = Field(20.0, ge=2, le=3_600, description="Silence after which a worker counts as dead.")
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Time between `/readyz` 503 and the end of taking requests when the service stops, in seconds.",
    )
    shutdown_grace_s: int = Field(
        10, ge=1, le=600, description="Time that running requests get when the service stops."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(
            ("sqlite:///", "postgresql://", "postgres://", "postgresql+psycopg://")
        ):
            raise ValueError("must begin with sqlite:/// or postgresql://")
        return url

    @property
    def resolved_database_url(self) -> str:
        """The database's URL: the one given, else SQLite inside the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'foxhound.db'}"

    @property
    def engine_socket(self) -> Path:
        """The Unix socket on which this node's worker reaches the engine."""
        folder = (self.run_dir or self.data_dir / "run").resolve()
        if len(str(folder)) > MAX_RUN_DIR_CHARS:
            digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"foxhound-{os.getuid()}-{digest}"
        return folder / "engine.sock"

    @property
    def resolved_models_dir(self) -> Path:
        """The folder that `foxhound models fetch` fills."""
        return (self.models_dir or self.data_dir / "packs").resolve()
