"""A worker process for the crash tests: `python worker.py DATABASE_URL TTL_S`; SIGTERM stops it."""

import signal
import sys
import threading

from app.db.session import Database
from app.jobs.worker import Worker
from tests.pictures import Pictures

if __name__ == "__main__":
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    url, ttl_s = sys.argv[1:]
    Worker(Database(url), url, [Pictures()], ttl_s=float(ttl_s), poll_s=0.05).run(stop, grace_s=2)
