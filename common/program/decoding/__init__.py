"""Packets in this project's words, for commands that explain them; scapy reads them."""
