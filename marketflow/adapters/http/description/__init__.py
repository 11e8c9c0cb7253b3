"""The API described: `/openapi.json`, the page that shows it, and what the types of problems mean."""
