"""SQLAlchemy models and sessions for SQLite and Postgres; knows nothing of HTTP, torch or the job engine."""
