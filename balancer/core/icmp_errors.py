"""ICMP errors about packets that a backend sent in the VIP's name: on to the flow's bridge."""

from __future__ import annotations

from collections.abc import Container

from balancer.core.flow import Flow
from common.core import checksum, icmp
from common.core.ledger import Ledger, Outcome
from common.core.segment import ECN_BITS, reverse


class Message(Outcome):
    """What became of an ICMP message."""

    STEERED = "icmp_steered"
    TO_HOST = "icmp_to_host"  # about a connection of the host's own
    UNKNOWN_FLOW = "icmp_unknown_flow"


def steer(
    data: bytes, services: Container[bytes], handed: dict[bytes, Flow], ledger: Ledger
) -> bytes | None:
    """The verdict on an ICMP error; raises MalformedError where it quotes too little.

    Only the outer IP header changes: ICMP's checksum covers no addresses (RFC 792), and the
    quotation is the bridge's to translate. What is not about one of the ``services`` (their VIP and
    port, 6 bytes) goes on as it is, to the connection of this host's own that it is about: nobody
    but the kernel could tell that connection of the path's MTU.
    """
    quoted = icmp.quoted_flow(data)
    # quoted: VIP to client; the table's keys are client to VIP
    if quoted is None or quoted[:4] + quoted[8:10] not in services:
        return ledger.passed(Message.TO_HOST, data)
    flow = handed.get(reverse(quoted))
    if flow is None or flow.target is None:
        return ledger.drop(Message.UNKNOWN_FLOW, data)
    steering = flow.target.steering
    head = bytearray(data[: icmp.header_bytes(data)])
    old = checksum.word_sum(head)
    head[1] = steering.tos(head[1] & ECN_BITS)
    head[16:20] = steering.bridge
    ip_sum = int.from_bytes(head[10:12], "big")
    new = checksum.updated(ip_sum, checksum.word_sum(head) - old)
    head[10:12] = new.to_bytes(2, "big")
    return ledger.passed(Message.STEERED, bytes(head) + data[len(head) :])
