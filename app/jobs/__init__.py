"""Background jobs that survive a crash of their process: how a job is queued, run, cancelled and taken over.

Durable execution (checkpoints, queues, fencing) is DBOS Transact's; this package is the only one that imports it.
The job row and its transitions are ours (`record`), and so is the detection of crashed workers (`heartbeat`,
`reaper`), which DBOS leaves open. The package imports no kind of job: handlers are handed in.

A job is a parent workflow on its kind's queue. It splits heavy work into chunks, child workflows on a queue of
their own, so that a waiting parent never holds a slot that its chunks need. Every workflow of ours succeeds from
the engine's point of view; the job's row says whether the job succeeded, failed or was cancelled. A job is stopped
through its row alone: by `cancel_requested`, or by an `error` while it runs.

`queue` runs in the API process; `worker` and what it imports run in the worker process. `signals`, `handler` and
`record` import no job engine, so services may use them.
"""
