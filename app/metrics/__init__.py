"""What a node counts and measures, as Prometheus reads it at `GET /metrics`.

`series.py` lists every series. Each application has a registry of its own. Imports no HTTP framework, no engine and no
storage: these report, or hand in functions.
"""
