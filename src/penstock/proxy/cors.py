"""Lets web pages of listed origins read the answers (CORS), by Starlette's middleware."""

from collections.abc import Collection
from typing import cast

from penstock.listener import Application

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PREFLIGHT_S = 600
"""How long a browser may remember that it may ask: Chromium forgets after 7,200 s."""


def readable_by(origins: Collection[str], application: Application) -> Application:
    """Return the application with CORS headers for these origins; itself if there are none."""
    if not origins:
        return application
    # Imported where it is asked for: most sidecars are called by no browser.
    from starlette.middleware.cors import CORSMiddleware

    middleware = CORSMiddleware(
        cast("CORSMiddleware", application),
        allow_origins=origins,
        allow_methods=METHODS,
        allow_headers=("*",),
        expose_headers=("*",),
        max_age=PREFLIGHT_S,
    )
    return cast("Application", middleware)
