"""The sidecar: an ASGI application that puts the scheduler between SDKs and a black-box API."""
