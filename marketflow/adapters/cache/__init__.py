"""The window: Redis, and its twin in memory."""
