"""Asking servers and bridges whether they are well: TCP connects, HTTP GETs and datagrams, by
asyncio.

Each function gives what is wrong, in few words that an operator finds the place by, or ''. They
never raise for what the other side does, and take the check's time-out at most.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket

import aiohttp
from yarl import URL

from common.core.agent_settings import MOST_BODY, BridgeCheck, ServerCheck
from common.core.bridge_health import MOST_ANSWER, AnswerError, Entry, decode


class AskError(Exception):
    """What was wrong with the other side."""


def session() -> aiohttp.ClientSession:
    """For HTTP checks. Each has a connection of its own, as a client has: one that was opened
    yesterday would not show that the server takes no more. Proxies are not asked for: a check is
    of the address that it names."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0, family=socket.AF_INET),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        headers={"User-Agent": "l3dsr-check", "Accept": "*/*", "Accept-Encoding": "identity"},
    )


async def server(http: aiohttp.ClientSession, check: ServerCheck) -> str:
    """What is wrong with a server, '' for nothing."""
    try:
        async with asyncio.timeout(check.timeout):
            if check.kind == "tcp":
                await _connect(check.address, check.port)
            elif check.kind == "udp":
                await _exchange(check)
            else:
                await _look_at(http, check)
    except TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except AskError as error:
        return str(error)
    return ""


async def bridge(http: aiohttp.ClientSession, check: BridgeCheck) -> list[Entry]:
    """What a bridge says of its servers; raises AskError where it says nothing of use."""
    where = f"bridge at {check.address}:{check.port}"
    try:
        async with asyncio.timeout(check.timeout):
            status, body = await get(http, check.address, check.port, "/health", MOST_ANSWER + 1)
    except TimeoutError:
        raise AskError(f"{where}: no answer within {check.timeout:g} s") from None
    except AskError as error:
        raise AskError(f"{where}: {error}") from None
    if status != 200:
        raise AskError(f"{where}: status {status}")
    if len(body) > MOST_ANSWER:
        raise AskError(f"{where}: the answer is longer than {MOST_ANSWER} bytes")
    try:
        return decode(body)
    except AnswerError as error:
        raise AskError(f"{where}: {error}") from None


async def _connect(address: str, port: int) -> None:
    try:
        _, writer = await asyncio.open_connection(address, port, family=socket.AF_INET)
    except OSError as error:
        raise AskError(words(error)) from None
    writer.transport.abort()  # RST: nothing is left to wait for at either side


class _Answers(asyncio.DatagramProtocol):
    """Has the first datagram that comes to its socket, or the error that does."""

    def __init__(self) -> None:
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if not self.first.done():
            self.first.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.first.done():
            self.first.set_exception(exc)


async def _exchange(check: ServerCheck) -> None:
    """The socket is connected: it hears the server alone, and ICMP's word that its port is closed.
    A datagram that is lost is a bad check as one that is not answered."""
    loop = asyncio.get_running_loop()
    transport = None
    try:
        transport, answers = await loop.create_datagram_endpoint(
            _Answers, remote_addr=(check.address, check.port), family=socket.AF_INET
        )
        transport.sendto(bytes.fromhex(check.send))
        answer = await answers.first
    except OSError as error:
        raise AskError(words(error)) from None
    finally:
        if transport is not None:
            transport.abort()
    if not answer.startswith(bytes.fromhex(check.expect)):
        raise AskError(f"the answer begins with {answer[:16].hex(' ') or 'nothing'}")
    if check.match and not re.search(check.match.encode("latin-1"), answer, re.DOTALL):
        raise AskError(f"'{check.match[:40]}' is not found in the answer")


async def _look_at(http: aiohttp.ClientSession, check: ServerCheck) -> None:
    most = MOST_BODY if check.body else 0
    status, body = await get(http, check.address, check.port, check.path, most, check.host)
    if not any(first <= status <= last for first, last in check.status):
        raise AskError(f"status {status}")
    if check.body and check.body.encode() not in body:
        raise AskError(f"'{check.body[:40]}' is not in the answer")


async def get(
    http: aiohttp.ClientSession, address: str, port: int, path: str, most: int, host: str = ""
) -> tuple[int, bytes]:
    """The status, and ``most`` bytes of the body; redirects are answers as others are. Raises
    AskError; the time is the caller's to limit."""
    url = URL(f"http://{address}:{port}{path}", encoded=True)
    headers = {"Host": host} if host else {}
    try:
        async with http.get(url, headers=headers, allow_redirects=False) as response:
            return response.status, await _first(response.content, most)
    except aiohttp.ClientConnectorError as error:
        raise AskError(words(error.os_error)) from None
    except aiohttp.ServerDisconnectedError:
        raise AskError("the connection was closed without an answer") from None
    except aiohttp.ClientError as error:
        raise AskError(f"no sound HTTP answer ({type(error).__name__})") from None
    except OSError as error:
        raise AskError(words(error)) from None


async def _first(content: aiohttp.StreamReader, most: int) -> bytes:
    found = bytearray()
    while len(found) < most and (more := await content.read(most - len(found))):
        found += more
    return bytes(found)


def words(error: OSError) -> str:
    """As the system has it, such as "connection refused"."""
    return os.strerror(error.errno).lower() if error.errno else str(error)
