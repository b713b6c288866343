"""Setting up the control socket beside the packets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from common.adapters.control.place import listening
from common.adapters.control.server import Command, Control, ControlServer
from common.core.config import Control as Configured
from common.program.loop import PacketLoop

log = logging.getLogger(__name__)


@contextmanager
def control(
    loop: PacketLoop, configured: Configured, commands: Mapping[str, Command]
) -> Iterator[ControlServer]:
    """Serve ``commands`` while the loop runs; raises ControlSocketError where the configured socket
    cannot be had. With '' for its path there is none, but whoever is adopted is served."""

    def failed(where: str) -> None:
        loop.bounded.log(logging.ERROR, Control.ERRORS, "%s", where)

    server = ControlServer(loop.watch, commands, loop.core.ledger.counts, failed)
    try:
        if not configured.socket:
            yield server
            return
        with listening(configured.socket, configured.group) as listener:
            server.listen(listener)
            log.info("control socket: %s", configured.socket)
            try:
                yield server
            finally:
                server.close()
    finally:
        server.close()
