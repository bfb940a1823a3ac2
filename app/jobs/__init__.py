"""Background work that survives its processes: what a job is, how it is queued, run, cancelled and taken over.

Durable execution (checkpoints, queues, fencing) is DBOS Transact's; this package is the only one that
imports it. The job row and its transitions are ours (`record`), and so is telling a dead worker from a
live one (`heartbeat`, `reaper`), which DBOS leaves open. Knows no kind of job: handlers are handed in.

A job is a parent workflow on its kind's queue. What is heavy it splits into chunks, child workflows on a
queue of their own, so that a waiting parent never holds a slot that its chunks need. Every workflow of
ours ends well in the engine's eyes; whether the job succeeded, failed or was cancelled is said by its row,
and a job that has to stop is stopped by its row alone (`cancel_requested`, or an `error` while running).

`queue` runs in the API process; `worker` and what it uses run in the worker process.
"""
