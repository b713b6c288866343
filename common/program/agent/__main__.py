"""``python -m common.program.agent NUMBER``: the agent of the process at the other end of a socket,
which it has inherited as descriptor NUMBER. The programs start it; nobody does by hand."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import suppress

from common.adapters.agent.privileges import drop_capabilities
from common.program import logs
from common.program.agent.process import work


def main() -> None:
    logs.setup("info")
    # Signals are the packet process's, and so is the end.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    try:
        drop_capabilities()
    except OSError as error:
        logging.getLogger(__name__).debug("the agent keeps its %s", error)
    with suppress(asyncio.CancelledError), socket.socket(fileno=int(sys.argv[1])) as connected:
        asyncio.run(work(connected))


main()
