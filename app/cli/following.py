"""Follows a job for a command: displays its states until it has ended.

Imports nothing of the server. It runs in the main thread of the command's process.
"""

from app.cli.console import print_note, progress_display, progress_text
from foxhound_client import Foxhound
from foxhound_client.models import JobRead


def show_until_end(fox: Foxhound, job_id: str, as_json: bool) -> JobRead:
    """Display a job until it ends, then print its error if it has one; return the job."""
    with progress_display(as_json) as show:
        for state in fox.jobs.events(job_id):
            show(state.status, state.progress.done, state.progress.total, progress_text(state))
    job = fox.jobs.get(job_id)
    if (error := job.error) is not None:
        print_note(f"{error.title}: {error.detail} ({error.code})")
    return job


def follow_hint(job_id: str, server: str) -> str:
    """Return what to print when a command ends before its job."""
    return f"The job continues in the service. Follow it: foxhound jobs wait {job_id} --server {server}"
