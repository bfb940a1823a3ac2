"""What the peers' commands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from bench.generate.pipeline import Subject


def parse_peer() -> argparse.Namespace:
    """Parse a peer's command line; a peer reads only the tuning that it has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True, help="CPU threads of a forward")
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--workers", type=int, default=1, help="pipelines that run at once")
    parser.add_argument("--max-batch-size", type=int, default=1)
    parser.add_argument("--batch-timeout", type=float, default=0.0, help="seconds to wait for a batch to fill")
    return parser.parse_args()


def subject_of(arguments: argparse.Namespace) -> Subject:
    """Return what is served."""
    return Subject(arguments.pack, arguments.device, arguments.threads, arguments.dtype)


def serve_app(app: FastAPI, port: int) -> None:
    """Serve until SIGTERM, with uvicorn set up as Foxhound's own."""
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
