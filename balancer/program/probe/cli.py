"""The command `balancer probe`."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Sequence
from dataclasses import asdict
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urlsplit

import click

from balancer.program.probe.seen import Seen
from common.core.config import BALANCER_PORT, BRIDGE_PORT
from common.program.examination import Line, Verdict
from common.program.reporting import FAILED

HELP = """Send a request through the VIP from this host, and say which step fails, where and why.
URL is http://VIP/PATH; or tcp://VIP:PORT, where nobody reads: what the server says first is shown.

The balancer, the bridges and this host's kernel are asked before and after what they know of
exactly this connection, and what they have counted; what differs names a wrong reverse-path filter,
a changed DSCP, a missing route, another key, a server that is down. Their endpoints ([http] listen)
must be reachable from here; what is not told is not judged. It takes no privileges, no
configuration, and some seconds at most. The exit code is 1 if anything is not ok.
"""
_ENDPOINT = re.compile(r"([0-9.]+)(?::([0-9]{1,5}))?")


@click.command(help=HELP)
@click.argument("url")
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
    help="Seconds for each of the two requests.",
)
@click.option("--json", "as_json", is_flag=True, help="Lines as objects, and all that was seen.")
def probe(
    url: str,
    balancer: str | None,
    bridges: Sequence[str],
    host: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    from balancer.program.probe import course, diagnosis  # noqa: PLC0415 - takes a while

    named, vip, port, path = _parted(url)
    unread = url.startswith("tcp:")
    wanted = course.Wanted(
        vip,
        port,
        host or named,
        path,
        _endpoint("--balancer", balancer or vip, BALANCER_PORT),
        [_endpoint("--bridge", each, BRIDGE_PORT) for each in bridges],
        timeout,
        unread,
    )
    seen = course.run(wanted)
    lines = list(diagnosis.lines(seen))
    if as_json:
        click.echo(json.dumps(_shown(seen, lines), indent=1))
    else:
        from common.program.doctor import table  # noqa: PLC0415

        click.echo(table(lines))
    if any(line.verdict is Verdict.NOT_OK for line in lines):
        raise SystemExit(FAILED)


def _parted(url: str) -> tuple[str, str, int, str]:
    """The Host field, address, port and path of http://HOST[:PORT]/PATH."""
    right = (
        "right would be http://VIP[:PORT]/PATH, such as http://192.168.33.10/, or tcp://VIP:PORT"
    )
    try:
        parts = urlsplit(url)
        port = parts.port or 80
        name = parts.hostname or ""
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if parts.scheme not in ("http", "tcp") or not name or parts.username:
            raise ValueError
        if not _sendable(path) or (parts.scheme == "tcp" and (path != "/" or not parts.port)):
            raise ValueError
    except ValueError:
        raise click.UsageError(f"{url!r} is wrong; {right}") from None
    return parts.netloc, _resolved(name), port, path


def _sendable(path: str) -> bool:
    return path.isascii() and path.isprintable() and " " not in path


def _resolved(name: str) -> str:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"{name!r} has no IPv4 address: {error}") from None
    return str(found[0][4][0])


def _endpoint(flag: str, text: str, port: int) -> str:
    """ADDRESS:PORT of ADDRESS[:PORT]."""
    found = _ENDPOINT.fullmatch(text)
    try:
        if found is None or not 0 < int(found[2] or port) < 65536:
            raise ValueError
        return f"{IPv4Address(found[1])}:{int(found[2] or port)}"
    except (ValueError, AddressValueError):
        raise click.UsageError(
            f"{flag}: {text!r} is wrong; right would be ADDRESS or ADDRESS:PORT"
        ) from None


def _shown(seen: Seen, lines: Sequence[Line]) -> dict[str, object]:
    """For scripts: the verdicts, and what they come from."""
    return {
        "ok": all(line.verdict is not Verdict.NOT_OK for line in lines),
        "client": seen.client,
        "handshake": seen.handshake,
        "request": None if seen.request is None else asdict(seen.request),
        "heard": None if seen.heard is None else asdict(seen.heard),
        "again": None if seen.again is None else asdict(seen.again),
        "balancer": seen.balancer.flow,
        "bridges": {address: told.flow for address, told in seen.bridges.items()},
        "lines": [asdict(line) for line in lines],
    }
