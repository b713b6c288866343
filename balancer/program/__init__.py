"""The balancer command: configuration, wiring, start-up checks."""
