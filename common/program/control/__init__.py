"""Commands to the running program: what both have, and how they are set up beside the packets."""
