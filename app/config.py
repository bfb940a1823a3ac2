"""The settings of Foxhound, read from environment variables and a `.env` file.

This is the only module that reads `FOXHOUND_*` variables. It imports only values and rules of the lowest
layer; engine, storage and
database modules receive plain values instead of `Settings`. Every process reads the settings once, at its start.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app import origins
from app.drawing_models import read_models
from app.image_spec import MAX_PROMPT_CHARS

# A Unix socket's path has at most 107 bytes on Linux, its file name included.
MAX_RUN_DIR_CHARS = 90

# The surfaces for other services' clients.
COMPAT_SURFACES = ("openai", "a1111", "huggingface")

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class Settings(BaseSettings):
    """Every setting of Foxhound; the environment variable is `FOXHOUND_` and the name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="FOXHOUND_",
        env_file=".env",
        env_file_encoding="utf-8-sig",  # skips the BOM that some editors write before the first variable
        extra="ignore",
        populate_by_name=True,
        str_strip_whitespace=True,
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    allow_anonymous: bool = Field(
        False,
        description="Whether requests without an API key are accepted, with every scope but `admin`. Without it, a "
        "node that others can reach starts only once there is a key, and a node on 127.0.0.1 is open until then.",
    )
    caller_requests_per_minute: int | None = Field(
        None, ge=1, le=100_000, description="Requests of one caller in any minute on one node; default: no bound."
    )
    caller_concurrent_requests: int | None = Field(
        None, ge=1, le=100_000, description="Requests of one caller that run at once on one node; default: no bound."
    )
    caller_concurrent_images: int | None = Field(
        None, ge=1, le=10_000, description="Images of one caller that /generate draws at once; default: no bound."
    )
    caller_pixel_steps_per_day: int | None = Field(
        None,
        ge=0,
        le=10**18,
        description="Images x steps x width x height that are accepted from one caller in a day (UTC), over all nodes; "
        "default: no bound.",
    )
    caller_stored_mb: int | None = Field(
        None,
        ge=0,
        le=10**9,
        description="Megabytes of images and models of one key (all callers without a key count as one) at which its "
        "new work is refused; default: no bound.",
    )
    read_own: bool = Field(
        False,
        description="Whether an API key sees only the objects that were created with it; a key with the scope `admin` "
        "sees all.",
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 selects a free port.")
    allowed_hosts: str | None = Field(
        None,
        description="Further Host names that the node answers to, separated by commas; `*.example.org` for all names "
        "under it, `*` for every host. Without it: localhost and loopback addresses; with another FOXHOUND_HOST also "
        "any IP address, any name without a dot and the machine's own names.",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose pages may call the node from a browser, such as `https://app.example.org`, "
        "separated by commas; `*` for every origin. Without it: none.",
    )
    compat: str = Field(
        ",".join(COMPAT_SURFACES),
        description="Which other services' clients the node answers to, separated by commas: `openai` (`/v1`), `a1111` "
        "(`/sdapi/v1`) and `huggingface` (`/hf`). Empty: none.",
    )
    ui: bool = Field(True, description="Whether the node serves its console, the pages under /ui.")
    data_dir: Path = Field(Path("data"), description="Folder of images, datasets, trained models and the SQLite file.")
    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("database_url", "FOXHOUND_DATABASE_URL", "DATABASE_URL"),
        description="sqlite:///... or postgresql://...; default: SQLite in the data folder. DATABASE_URL works too.",
    )
    run_dir: Path | None = Field(
        None, description="Folder of the node's Unix socket; default: `run` in the data folder."
    )

    model_pack: Literal["demo", "sd15"] = Field("demo", description="The model pack to serve.")
    models_dir: Path | None = Field(
        None, description="Folder of downloaded packs; default: `packs` in the data folder."
    )
    diffusion_dir: Path | None = Field(
        None,
        description="A local StableDiffusionPipeline folder, or a single-file `.safetensors` checkpoint of Stable "
        "Diffusion 1.x, that replaces the pack's.",
    )
    loras_dir: Path | None = Field(
        None,
        description="A local folder of LoRAs as `.safetensors`, and of textual-inversion embeddings there or in its "
        "subfolder `embeddings`; read at the start. Default: none.",
    )
    loras_mb: int = Field(
        4_000,
        ge=1,
        le=1_000_000,
        description="Megabytes of fused weights of the LoRAs in use and of those used last; requests with other LoRAs "
        "wait until these fit.",
    )
    models: str | None = Field(
        None,
        description="Further diffusion models that requests may name, as `name=path` separated by commas: folders of "
        "StableDiffusionPipeline or of a model pack, and single-file `.safetensors` checkpoints of Stable Diffusion "
        "1.x. They are loaded when they are used; the default one always stays. Default: none.",
    )
    models_mb: int = Field(
        5_000,
        ge=1,
        le=1_000_000,
        description="Megabytes of weights in memory of these models; the least recently used one makes room, and "
        "requests wait while all are in use.",
    )
    clip_dir: Path | None = Field(None, description="A local CLIPModel folder that replaces the pack's.")
    classifier_dir: Path | None = Field(None, description="A local classifier folder that replaces the pack's.")
    backbone_dir: Path | None = Field(None, description="A local training backbone folder that replaces the pack's.")
    backbones_mb: int = Field(
        2_000,
        ge=50,
        le=1_000_000,
        description="Megabytes of weights of the backbones that are loaded on demand; more evict the least recently "
        "used one.",
    )
    device: Device = Field("auto", description="auto | cpu | cuda | cuda:n; auto uses a GPU if there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the diffusion model; auto: float16 on CUDA, float32 on the CPU. bfloat16 "
        "can be twice as fast on CPUs that support it.",
    )
    deterministic: bool | None = Field(
        None,
        description="Whether an image's bytes are independent of the batch it is computed in; default: yes on the "
        "CPU, no on a GPU. On a GPU, `true` pads every forward pass to eight rows, which costs time.",
    )
    gpu_graphs: bool = Field(
        True, description="Whether denoising on a GPU records its forward passes as CUDA graphs and replays them."
    )
    gpu_compile: bool = Field(
        False,
        description="Whether the diffusion model is compiled on a GPU: faster images, slow start, needs a C compiler.",
    )
    num_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="CPU threads of a model's forward pass; default: `OMP_NUM_THREADS`, else all cores that the "
        "process may use.",
    )

    max_queue_size: int = Field(
        64, ge=1, le=10_000, description="Maximum number of waiting engine requests; further requests get 503."
    )
    max_queued_jobs: int = Field(
        10_000, ge=1, le=1_000_000, description="Maximum number of queued and paused jobs; new ones get 503."
    )
    max_prompt_chars: int = Field(
        MAX_PROMPT_CHARS, ge=1, le=MAX_PROMPT_CHARS, description="Maximum length of a prompt, in characters."
    )
    max_inference_steps: int = Field(150, ge=1, le=150, description="Maximum number of denoising steps of an image.")
    max_images_per_prompt: int = Field(16, ge=1, le=16, description="Maximum number of images of one request.")
    max_work_pixel_steps: int = Field(
        2_000_000_000, ge=1_000_000, description="Maximum of images x steps x width x height of one request."
    )
    max_dataset_images: int = Field(100_000, ge=2, le=100_000, description="Maximum number of images of one dataset.")
    max_upload_bytes: int = Field(
        20_000_000, ge=1_000, le=20_000_000, description="Maximum size of an uploaded image file, in bytes."
    )
    max_upload_pixels: int = Field(
        40_000_000, ge=4_096, le=40_000_000, description="Maximum number of pixels of an uploaded image."
    )
    max_body_bytes: int = Field(
        30_000_000, ge=10_000, le=30_000_000, description="Maximum size of a JSON body, in bytes."
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        le=3_600,
        description="Maximum time without a byte while a client sends a body or reads a response, in seconds; then the "
        "request is dropped.",
    )
    min_upload_rate: int = Field(
        1_000, ge=1, le=1_000_000_000, description="Minimum average rate of a request body, in bytes per second."
    )
    head_timeout_s: float = Field(
        30.0, gt=0, le=3_600, description="Maximum time for the head of a request to arrive, in seconds."
    )
    max_connections: int = Field(
        1_000, ge=1, le=100_000, description="Maximum number of open connections; a new one replaces an idle one."
    )
    max_connections_per_address: int = Field(
        400,
        ge=0,
        le=100_000,
        description="Maximum number of open connections from one address (IPv6: one /64 network). Set 0, no limit, "
        "behind a reverse proxy.",
    )

    refused_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Part of the node's time that one address may spend on large requests that are refused, and "
        "on large recipes while other addresses are served; beyond it, its large requests wait, up to 10 seconds, or "
        "get 429. 0: no limit.",
    )
    reserve_mb: int = Field(
        256,
        ge=0,
        le=1_000_000,
        description="Megabytes to keep free on the disk. With less, new work gets 507; deletions still work. 0: none.",
    )
    keep_images_days: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Days that images of /generate are kept; older ones are removed once a day. Images of datasets "
        "stay. Default: for ever.",
    )
    keep_images_gb: float | None = Field(
        None,
        gt=0,
        le=1_000_000,
        description="Gigabytes of images of /generate that are kept; once a day, the oldest beyond it are removed. "
        "Images of datasets stay. Default: no limit.",
    )

    chunk_size: int = Field(
        8, ge=1, le=64, description="Number of images of a dataset that are generated and recorded together."
    )
    worker_ttl_s: float = Field(
        20.0, ge=2, le=3_600, description="Time without a heartbeat after which a worker counts as dead, in seconds."
    )
    shutdown_delay_s: float = Field(
        0.0,
        ge=0,
        le=600,
        description="When the service stops: time from the first 503 of `/readyz` to the first refused request, in s.",
    )
    shutdown_grace_s: int = Field(
        10, ge=1, le=600, description="When the service stops: time for running requests to finish, in seconds."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum severity of log messages."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Format of the log: lines for people, or a JSON object a line."
    )

    otel: bool = Field(
        False,
        validation_alias=AliasChoices(
            "otel", "FOXHOUND_OTEL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        ),
        description="Whether traces are sent by OpenTelemetry, which `pip install foxhound[otel]` installs. Default: "
        "whether OTEL_EXPORTER_OTLP_ENDPOINT is set. The other OTEL_* variables say where to and how many.",
    )

    @field_validator("otel", mode="before")
    @classmethod
    def _is_wanted(cls, value: object) -> object:
        return True if isinstance(value, str) and "://" in value else value or False

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(
            ("sqlite:///", "postgresql://", "postgres://", "postgresql+psycopg://")
        ):
            raise ValueError("must begin with sqlite:/// or postgresql://")
        return url

    @field_validator("allowed_hosts", "cors_origins")
    @classmethod
    def _known_hosts(cls, value: str | None, info: ValidationInfo) -> str | None:
        (origins.read_origins if info.field_name == "cors_origins" else origins.read_hosts)(value or "")
        return value or None

    @field_validator("compat")
    @classmethod
    def _known_surfaces(cls, value: str) -> str:
        if unknown := set(_listed(value)) - set(COMPAT_SURFACES):
            known = ", ".join(COMPAT_SURFACES)
            raise ValueError(f"has {len(unknown)} unknown names; the surfaces are {known}")
        return value

    @field_validator("models")
    @classmethod
    def _known_models(cls, value: str | None, info: ValidationInfo) -> str | None:
        read_models(value or "", info.data.get("model_pack", ""))
        return value or None

    @property
    def named_models(self) -> dict[str, Path]:
        """The diffusion models beside the default one: their paths by their names."""
        return read_models(self.models or "")

    @property
    def compat_surfaces(self) -> tuple[str, ...]:
        """The surfaces for other services' clients that are on."""
        return tuple(name for name in COMPAT_SURFACES if name in _listed(self.compat))

    @property
    def resolved_database_url(self) -> str:
        """The URL of the database; by default SQLite in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'foxhound.db'}"

    @property
    def engine_socket(self) -> Path:
        """The path of the Unix socket by which this node's worker reaches the engine."""
        folder = (self.run_dir or self.data_dir / "run").resolve()
        if len(str(folder)) > MAX_RUN_DIR_CHARS:
            digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
            folder = Path(tempfile.gettempdir()) / f"foxhound-{os.getuid()}-{digest}"
        return folder / "engine.sock"

    @property
    def resolved_models_dir(self) -> Path:
        """The folder into which `foxhound models fetch` downloads packs."""
        return (self.models_dir or self.data_dir / "packs").resolve()


def _listed(value: str) -> list[str]:
    return [name for part in value.split(",") if (name := part.strip())]
