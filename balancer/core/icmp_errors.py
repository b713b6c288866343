"""ICMP errors about packets that a backend sent in the VIP's name: on to the bridge of the flow, or
of the mapping."""

from __future__ import annotations

from collections.abc import Callable

from balancer.core.catalogue import Catalogue
from balancer.core.datagrams.mapping import Mapping
from balancer.core.flow import Flow
from common.core import checksum, icmp
from common.core.ledger import Ledger, Outcome
from common.core.segment import ECN_BITS, TCP, reverse


class Message(Outcome):
    """What became of an ICMP message."""

    STEERED = "icmp_steered"
    TO_HOST = "icmp_to_host"  # about a connection of the host's own
    UNKNOWN_FLOW = "icmp_unknown_flow"


def steer(
    data: bytes,
    catalogue: Catalogue,
    handed: dict[bytes, Flow],
    mapping_of: Callable[[bytes], Mapping | None],
    ledger: Ledger,
) -> bytes | None:
    """The verdict on an ICMP error; raises MalformedError where it quotes too little.

    Only the outer IP header changes: ICMP's checksum covers no addresses (RFC 792), and the
    quotation is the bridge's to translate. What is not about one of the services goes on as it is,
    to the connection of this host's own that it is about: nobody but the kernel could tell that
    connection of the path's MTU. ``mapping_of`` finds that of a client's datagrams by their key.
    """
    found = icmp.quoted_key(data)
    if found is None:
        return ledger.passed(Message.TO_HOST, data)
    protocol, quoted = found  # VIP to client; the tables' keys are client to VIP
    services = catalogue.services if protocol == TCP else catalogue.datagram_services
    if quoted[:4] + quoted[8:10] not in services:
        return ledger.passed(Message.TO_HOST, data)
    key = reverse(quoted)
    owner = handed.get(key) if protocol == TCP else mapping_of(key)
    if owner is None or owner.target is None:
        return ledger.drop(Message.UNKNOWN_FLOW, data)
    steering = owner.target.steering
    head = bytearray(data[: icmp.header_bytes(data)])
    old = checksum.word_sum(head)
    head[1] = steering.tos(head[1] & ECN_BITS)
    head[16:20] = steering.bridge
    ip_sum = int.from_bytes(head[10:12], "big")
    new = checksum.updated(ip_sum, checksum.word_sum(head) - old)
    head[10:12] = new.to_bytes(2, "big")
    return ledger.passed(Message.STEERED, bytes(head) + data[len(head) :])
