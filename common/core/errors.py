"""Why a packet could not be read: one error, with a reason that is also the counter's name."""

from __future__ import annotations

from common.core.ledger import Outcome


class Malformed(Outcome):
    """Reasons that a decoder gives."""

    TRUNCATED = "truncated"  # fewer bytes than a header or its length field says
    NOT_IPV4 = "not_ipv4"
    BAD_IP_HEADER = "bad_ip_header"  # header length below 20 bytes
    BAD_TCP_HEADER = "bad_tcp_header"  # data offset below 20 bytes or past the packet
    BAD_TCP_OPTIONS = "bad_tcp_options"
    BAD_TCP_CHECKSUM = "bad_tcp_checksum"
    BAD_UDP_LENGTH = "bad_udp_length"  # not that of the IP payload
    BAD_UDP_CHECKSUM = "bad_udp_checksum"
    ZERO_PORT = "zero_port"  # of UDP: nobody could answer to it, or listens there
    FRAGMENT = "fragment"
    OTHER_PROTOCOL = "other_protocol"  # none of TCP, UDP and ICMP
    BAD_ICMP = "bad_icmp"  # an error that quotes too little, or nothing of ours
    BAD_HANDOFF_OPTION = "bad_handoff_option"


class MalformedError(Exception):
    """A packet or option that is not what its headers say. ``reason`` names the counter."""

    def __init__(self, reason: Malformed) -> None:
        super().__init__(reason.value)
        self.reason = reason
