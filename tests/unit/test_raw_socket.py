"""Errors that the kernel reports in place of sending: a stand-in for a socket of kernels that let
an ICMP error about any packet of protocol 255 become one (Linux 6.18 does not)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from common.adapters.raw_socket import RawSockets

PACKET = bytes(16) + bytes([192, 0, 2, 1])


class Kernel:
    """A raw socket whose next calls fail with these errors; ``sent`` is what went out."""

    def __init__(self, *errors: int) -> None:
        self.sent: list[bytes] = []
        self._errors = list(errors)

    def setsockopt(self, *_: object) -> None: ...

    def setblocking(self, _: bool) -> None: ...

    def sendto(self, packet: bytes, _: object) -> None:
        if self._errors:
            raise OSError(self._errors.pop(0), "as reported")
        self.sent.append(packet)


@pytest.fixture
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    kernel = Kernel(*request.param)
    monkeypatch.setattr(socket, "socket", lambda *_: kernel)
    yield kernel


@pytest.mark.parametrize("kernel", [(errno.ECONNREFUSED,), (errno.EHOSTUNREACH,)], indirect=True)
def test_an_error_about_another_packet_costs_none(kernel: Kernel) -> None:
    RawSockets().send(0, PACKET)
    assert kernel.sent == [PACKET]


@pytest.mark.parametrize("kernel", [(errno.ENETUNREACH,) * 2, (errno.EPERM,) * 2], indirect=True)
def test_an_error_that_stays_is_this_packets(kernel: Kernel) -> None:
    with pytest.raises(OSError, match="as reported"):
        RawSockets().send(0, PACKET)
    assert kernel.sent == []


@pytest.mark.parametrize("kernel", [(errno.ENOBUFS,), (errno.EAGAIN,)], indirect=True)
def test_a_packet_without_room_is_not_sent_again_at_once(kernel: Kernel) -> None:
    with pytest.raises(OSError, match="as reported"):
        RawSockets().send(0, PACKET)
    assert kernel.sent == []
