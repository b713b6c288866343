"""TLS by name: what a client says in the clear before anything is encrypted."""
