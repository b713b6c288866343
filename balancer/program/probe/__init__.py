"""`balancer probe`: a request through the VIP, and where it fails, which host failed it and why.

The request is made from this host, step by step. Before and after it the balancer, the bridges and
this host's kernel are asked what they know of exactly this connection, and what they have counted;
from what differs `diagnosis` says what is wrong, and what mends it. What was not told is not
judged.
"""
