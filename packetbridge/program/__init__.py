"""The packetbridge command: configuration, wiring, start-up checks."""
