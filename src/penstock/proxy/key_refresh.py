"""Reads upstreams' keys from their files and commands again, before they expire."""

import asyncio
import logging
import os
from collections.abc import Mapping

from penstock.proxy.config.checks import source_of_upstream
from penstock.proxy.config.keyring import read_key
from penstock.proxy.config.models import Config
from penstock.proxy.upstream.client import UpstreamClient
from penstock.wire.secret import KeyProblem

logger = logging.getLogger("penstock.proxy")

LOOK_S = 1.0


class KeyRefresh:
    """Asks each file or command every `api_key_refresh_s`; a key that cannot be had stays."""

    def __init__(self, config: Config, links: Mapping[str, UpstreamClient]) -> None:
        """Look after these upstreams; the keys of the start are fresh."""
        self._links = links
        self._troubled: set[str] = set()
        self.take(config)

    def take(self, config: Config) -> None:
        """Look after this configuration's upstreams from now on."""
        sources = {
            upstream.name: (source, upstream.api_key_refresh_s)
            for index, upstream in enumerate(config.upstreams)
            if (source := source_of_upstream(upstream, index)) is not None and source.kind != "env"
        }
        self._sources = sources
        self._due_in_s = {name: every_s for name, (_, every_s) in sources.items()}

    async def keep_reading(self) -> None:
        """Read what is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for name, (source, every_s) in list(self._sources.items()):
                self._due_in_s[name] = self._due_in_s.get(name, every_s) - LOOK_S
                if self._due_in_s[name] > 0:
                    continue
                self._due_in_s[name] = every_s
                try:
                    key = await asyncio.to_thread(read_key, source, os.environ)
                except KeyProblem as problem:
                    if name not in self._troubled:
                        self._troubled.add(name)
                        logger.warning(
                            "%s %s (%s); upstream %s goes on with the key it had",
                            source.place,
                            problem.rule,
                            problem.likely,
                            name,
                        )
                    continue
                self._troubled.discard(name)
                if self._sources.get(name, (None,))[0] == source:  # no reload has come between
                    self._links[name].use_key(key)
