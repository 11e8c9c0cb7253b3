"""The outside world: exchanges, Redis, PostgreSQL, HTTP. Adapters do not import each other."""
