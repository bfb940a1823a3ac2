"""The worker process: registers the handlers of every kind of job and runs them until it is told to stop.

Holds no model: it asks its node's engine.
"""

import logging
import os
import threading
from typing import NoReturn

import torch

from app.config import Settings
from app.db.session import Database
from app.jobs.handler import JobHandler
from app.jobs.worker import Worker
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages, DatasetJob
from app.services.datasets.repair_job import RepairJob
from app.services.generations.job import GenerateJob
from app.services.store.identity import assign_store_id
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.storage.reserve import reserve_of


def run_worker(settings: Settings, node: NodeClient, stop: threading.Event, *, host: str | None = None) -> None:
    """Work off the queues until `stop` is set.

    Args:
        settings: The node's settings.
        node: The node's engine.
        stop: Ends the work at the next image; what is unfinished goes on elsewhere or later.
        host: Where a pid means the same process; default: here.
    """
    url = settings.resolved_database_url
    # A probe's matrices are tiny, and one thread gives the same bytes on every machine size.
    torch.set_num_threads(1)
    db = Database(url, idle_transaction_s=settings.worker_ttl_s)
    folder = DataFolder(settings.data_dir, reserve_of(settings.data_dir, url, settings.reserve_mb))
    assign_store_id(db, folder)
    folder.sweep()  # what writers that were killed left unfinished, once it is an hour old
    images = DatasetImages(db, folder, node, chunk_size=settings.chunk_size)
    handlers: list[JobHandler] = [
        GenerateJob(folder, node),
        DatasetJob(images),
        RepairJob(db, folder, node),
        TrainJob(db, folder, FeatureCache(folder.features, reserve=folder.reserve), node, images),
    ]
    try:
        Worker(db, url, handlers, ttl_s=settings.worker_ttl_s, host=host).run(stop, settings.shutdown_grace_s)
    finally:
        node.close()
        db.close()


def leave_process() -> NoReturn:
    """End this process, after `run_worker`, whatever its threads wait for.

    The job engine's wait for what another worker will record, where that one took work over: an hour, perhaps, in which
    nobody would work here.
    """
    logging.shutdown()
    os._exit(0)
