"""Owns the VIP: answers handshakes, reads requests, chooses a backend, hands connections over."""
