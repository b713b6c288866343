"""Cuts the quotations in ICMP errors of a netfilter queue to the least that RFC 792 allows.

    python -m tests.e2e.cutting QUEUE

Prints "ready", then lets each packet go with the quoted IP header and 8 bytes behind it, as old
routers send them, until SIGTERM.
"""

from __future__ import annotations

import sys

from netfilterqueue import NetfilterQueue, Packet
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

QUOTED = 20 + 8


def cut(packet: Packet) -> None:
    whole = IP(packet.get_payload())
    error = ICMP(bytes(whole[ICMP])[:8])
    del error.chksum
    quotation = Raw(bytes(whole[ICMP])[8 : 8 + QUOTED])
    outer = IP(src=whole.src, dst=whole.dst, ttl=whole.ttl, tos=whole.tos, id=whole.id)
    packet.set_payload(bytes(outer / error / quotation))
    packet.accept()


def main(number: int) -> None:
    queue = NetfilterQueue()
    queue.bind(number, cut)
    print("ready", flush=True)
    queue.run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
