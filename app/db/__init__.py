"""SQLAlchemy models and sessions for SQLite and Postgres; imports no HTTP, no torch and no job engine."""
