"""Who sends a request, and what he may do: API keys, their scopes, and whose objects a caller sees."""
