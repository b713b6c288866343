"""UDP: datagrams that were steered here go to the server, its answers to the client.

The way up needs no memory: the bridge's address, the port and the DSCP tell the server and the VIP.
The way down does, as an answer tells only the client and the server: each datagram up makes or
refreshes a *mapping* (RFC 4787 section 4.1), and so does each one down.
"""
