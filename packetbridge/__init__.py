"""Runs beside the backend: splices handed-over connections to an unmodified server."""
