"""Transports for httpx2 and httpx, sync and async: one way of working, four thin classes."""
