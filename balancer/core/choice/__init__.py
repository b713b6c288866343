"""Which backend a connection goes to: policies, pools of backends, and rate limits."""
