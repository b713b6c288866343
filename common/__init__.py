"""What both programs share: wire formats, adapters to the host, program plumbing."""

__version__ = "0.1.0"
