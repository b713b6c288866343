"""The beginning of an HTTP/2 connection without TLS, with prior knowledge (RFC 9113 section 3.3).

All that is read comes before the server has said anything, so its SETTINGS cannot matter: a client
has not seen them, and may use only what holds until then. Frames have 16,384 bytes at most (section
4.2), an encoder's dynamic table 4,096 (section 6.5.2), there is no other pseudo-header field than
RFC 9113's own (RFC 8441 section 3). The client's own SETTINGS are about what the server sends.
"""
