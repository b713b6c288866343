"""A scapy dissector for the handoff option, written from its format and not from our decoder.

So either can be tested against the other. The format stands in common.core.handoff.
"""

from scapy.fields import (
    BitEnumField,
    BitField,
    ByteField,
    StrFixedLenField,
    XShortField,
)
from scapy.packet import Packet

from common.core.handoff import RTT_STEPS

KINDS = {
    0: "HANDOFF",
    1: "HANDOFF confirm",
    2: "FORGET",
    3: "ASK TIME",
    4: "ACCEPTED",
    5: "REFUSED",
    6: "ENDED",
}
"""Kinds of message; from 4 on they go from bridge to balancer."""


class HandoffOption(Packet):  # type: ignore[misc]  # scapy has no types
    """The option's 16 bytes. `mss_units` are of 4 bytes, scales of 15 mean none."""

    name = "Handoff option"
    fields_desc = [  # noqa: RUF012  # scapy's way to declare a packet
        ByteField("option", 253),
        ByteField("length", 16),
        XShortField("exid", 0x4C33),
        BitField("mss_units", 365, 12),
        BitField("rtt_code", 0, 4),
        BitField("client_scale", 15, 4),
        BitField("promised_scale", 15, 4),
        BitField("epoch", 0, 4),
        BitField("sack", 0, 1),
        BitEnumField("kind", 0, 3, KINDS),
        StrFixedLenField("mac", bytes(8), 8),
    ]

    @property
    def to_balancer(self) -> bool:
        """True for an answer, False for what the balancer sends."""
        return bool(self.kind >= 4)

    @property
    def word(self) -> str:
        """The kind of message."""
        return KINDS.get(self.kind, f"unknown kind {self.kind}")

    def mysummary(self) -> str:
        """One line in this project's words; the MAC is not checked, which takes the key."""
        if self.kind not in (0, 1):
            return f"{self.word} epoch={self.epoch}"
        words = [
            self.word,
            f"mss={self.mss_units * 4}",
            f"wscale client={scale_text(self.client_scale)} promised="
            f"{scale_text(self.promised_scale)}",
            "sack" if self.sack else "no-sack",
            f"epoch={self.epoch}",
            f"rtt>={RTT_STEPS[self.rtt_code]}ms",
        ]
        return " ".join(words)


def scale_text(scale: int) -> str:
    """A window scale of four bits in words: 15 stands for a SYN without the option."""
    return "none" if scale == 15 else str(scale)
