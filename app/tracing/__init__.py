"""Traces: spans of requests, engine requests, jobs and chunks, if OpenTelemetry is wanted (`foxhound[otel]`).

`spans.py` is what the application calls, and costs nothing while tracing is off; `otel.py` alone imports OpenTelemetry.
Spans name routes, kinds and ids, and quote no user. Imports nothing of the application.
"""
