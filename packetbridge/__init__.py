"""Runs beside the backend: takes handed-over connections and splices them to an unmodified server."""
