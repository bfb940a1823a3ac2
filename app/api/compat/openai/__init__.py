"""Routes under `/v1` for clients of OpenAI's API, and of Infinity's embeddings."""
