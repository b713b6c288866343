"""packetbridge without I/O: packets in, packets and verdicts out."""
