"""Owns the VIP: answers handshakes, reads requests, chooses a backend and hands the connection over."""
