"""The request of a waiting connection: what has come of it, and where it says it is to go."""
