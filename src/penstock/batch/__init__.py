"""Runs a file of requests in OpenAI's batch format; survives being killed at any moment."""
