"""The source of exchanges that send WebSocket messages, the same for all venues."""
