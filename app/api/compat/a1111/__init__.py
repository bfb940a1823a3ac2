"""Routes under `/sdapi/v1` for clients of AUTOMATIC1111's web UI."""
