"""The wire contract: requests with limits, responses without defaults; read by `api` and `services`."""
