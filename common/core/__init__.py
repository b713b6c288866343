"""Packets, keys, counters, tables: no sockets, no clocks, no logging; time is an argument."""
