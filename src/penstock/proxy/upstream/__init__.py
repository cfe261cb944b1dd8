"""The way up: aiohttp's client, told to relay bytes as they are."""
