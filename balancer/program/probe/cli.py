"""The command `balancer probe`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from common.core.config import BALANCER_PORT
from common.program.examination import Line, Verdict
from common.program.reporting import FAILED

if TYPE_CHECKING:
    from balancer.program.probe.seen import Seen

HELP = """Ask a service through the VIP from this host, and say which step fails, where and why.

\b
http://VIP[:PORT]/PATH    two requests on one connection
https://NAME[:PORT]/PATH  the same over TLS; with --to VIP where NAME does not resolve to it
tcp://VIP:PORT            a connection, and what the server says first
udp://VIP:PORT            a datagram, of --send, and its answer

The balancer, the bridges and this host's kernel are asked before and after what they know of
exactly this connection, and what they have counted; what differs names a wrong reverse-path filter,
a changed DSCP, a missing route, another key, a server that is down. Their endpoints ([http] listen)
must be reachable from here; what is not told is not judged. It takes no privileges, no
configuration, and some seconds at most. The exit code is 1 if anything is not ok.
"""


@click.command(help=HELP)
@click.argument("url")
@click.option(
    "--to",
    metavar="VIP[:PORT]",
    help="Where to send it, whatever the URL's name resolves to, as curl's --connect-to.",
)
@click.option("--send", metavar="TEXT|hex:DIGITS", help="The datagram's data, for udp://.")
@click.option(
    "--cacert",
    metavar="FILE",
    help="Who must have signed the certificate of https://, which is judged not ok if it does not "
    "fit. Default: the host's own authorities, and a warning.",
)
@click.option(
    "--balancer",
    metavar="ADDRESS[:PORT]",
    help=f"The balancer's endpoint. Default: the VIP, port {BALANCER_PORT}.",
)
@click.option(
    "--bridge",
    "bridges",
    metavar="ADDRESS[:PORT]",
    multiple=True,
    help="A bridge's endpoint, for the case that the balancer does not name it. Repeat for more.",
)
@click.option("--host", metavar="NAME", help="The Host field. Default: as in the URL.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.5, 60),
    default=4.0,
    show_default=True,
    help="Seconds for each step after TCP's handshake.",
)
@click.option("--json", "as_json", is_flag=True, help="Lines as objects, and all that was seen.")
def probe(
    url: str,
    to: str | None,
    send: str | None,
    cacert: str | None,
    balancer: str | None,
    bridges: Sequence[str],
    host: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    # they take a while, and with OpenSSL 4 MB, which the balancer itself does not need
    from balancer.program.probe import course, diagnosis  # noqa: PLC0415
    from balancer.program.probe.wanted import wanted  # noqa: PLC0415

    try:
        asked = wanted(url, to, host, send, balancer, bridges, timeout, cacert)
        seen = course.run(asked)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    lines = list(diagnosis.lines(seen))
    if as_json:
        click.echo(json.dumps(_shown(seen, lines), indent=1, default=bytes.hex))
    else:
        from common.program.doctor import table  # noqa: PLC0415

        click.echo(table(lines))
    if any(line.verdict is Verdict.NOT_OK for line in lines):
        raise SystemExit(FAILED)


def _shown(seen: Seen, lines: Sequence[Line]) -> dict[str, object]:
    """For scripts: the verdicts, and what they come from; bytes in hexadecimal."""
    made = seen.made
    return {
        "ok": all(line.verdict is not Verdict.NOT_OK for line in lines),
        "client": made.client,
        "handshake": made.handshake,
        "tls": _fields(made.tls),
        "request": _fields(made.request),
        "again": _fields(made.again),
        "greeting": _fields(made.greeting),
        "datagram": _fields(made.datagram),
        "balancer": seen.balancer.flow,
        "bridges": {address: told.flow for address, told in seen.bridges.items()},
        "lines": [asdict(line) for line in lines],
    }


def _fields(step: Any) -> dict[str, Any] | None:
    return None if step is None else asdict(step)
