"""The aggregate store: PostgreSQL, and its twin in memory."""
