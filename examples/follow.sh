#!/usr/bin/env bash
# Follows a job by its events until it has ended; the exit status is 1 if it has not succeeded.
#
#   bash examples/follow.sh [JOB_ID]
#
# Default: the newest job that has not ended; nothing to do if there is none. Settings: those of lib.sh.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
job_id=${1:-}
for state in running queued paused; do
  [ -z "$job_id" ] || break
  ask_ok "/jobs?status=$state&limit=1"
  job_id=$(json items.0.id <"$scratch/answer")
done
if [ -z "$job_id" ]; then
  echo "0 of 0 jobs run or wait"
  exit 0
fi
echo "job $job_id"
follow "$job_id"
require_success
