"""The asyncio driver around the pure core: clock, waiters, the public gate, logs and spans."""
