"""Packets, keys, counters and tables: no sockets, no clocks, no logging; the time is an argument."""
