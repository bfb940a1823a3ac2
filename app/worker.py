"""The worker process: builds the handlers of every kind of job and runs them until it is stopped.

Imports no model: images and features come from the node's engine. It imports torch only when a job trains.
"""

import logging
import os
import threading
from typing import NoReturn

from app.config import Settings
from app.db.session import Database
from app.jobs.handler import JobHandler
from app.jobs.worker import Worker
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.services.datasets.repair_job import RepairJob
from app.services.evaluation.job import EvaluateJob
from app.services.generations.job import GenerateJob
from app.services.store.daily_prune import DailyPrune
from app.services.store.identity import assign_store_id
from app.services.store.retention import Retention
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.storage.reserve import reserve_of
from app.tracing.spans import NO_TRACING, Tracing


def run_worker(
    settings: Settings,
    node: NodeClient,
    stop: threading.Event,
    *,
    host: str | None = None,
    tracing: Tracing = NO_TRACING,
) -> None:
    """Run jobs until `stop` is set.

    Args:
        settings: The node's settings.
        node: The node's engine; it need not be up yet.
        stop: Ends the work at the next image; unfinished jobs continue on another worker, or after the next start.
        host: Names the scope in which a pid identifies a process; default: `app.jobs.heartbeat.host_name()`.
        tracing: Makes spans of jobs and chunks; closed at the end.
    """
    url = settings.resolved_database_url
    db = Database(url, idle_transaction_s=settings.worker_ttl_s)
    folder = DataFolder(settings.data_dir, reserve_of(settings.data_dir, url, settings.reserve_mb))
    assign_store_id(db, folder)
    folder.sweep()  # partial files of killed writers, once they are an hour old
    images = DatasetImages(db, folder, node, chunk_size=settings.chunk_size)
    features = FeatureCache(folder.features, reserve=folder.reserve)
    handlers: list[JobHandler] = [
        GenerateJob(db, folder, node),
        DatasetJob(images),
        RepairJob(db, folder, node),
        TrainJob(db, folder, features, node, images),
        EvaluateJob(db, folder, features, node),
    ]
    try:
        worker = Worker(db, url, handlers, ttl_s=settings.worker_ttl_s, host=host, tracing=tracing)
        retention = Retention(settings.keep_images_days, settings.keep_images_gb)
        daily = DailyPrune(db, folder, retention, worker.id, interval_s=settings.worker_ttl_s / 4)
        worker.run(stop, settings.shutdown_grace_s, beside=[daily.watch])
    finally:
        node.close()
        db.close()
        tracing.close()


def leave_process() -> NoReturn:
    """End this process after `run_worker` without waiting for its threads.

    A thread of the job engine may wait for the result of a workflow that another worker has taken over. That can take
    an hour, in which this node would have no worker.
    """
    logging.shutdown()
    os._exit(0)
