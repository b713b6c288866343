"""The agent: a process of its own for what must not hold packets up: health checks, /health and
/metrics, the access log. It asks the packet process for what it needs, as any client of the control
protocol does, and ends with it.

The commands that it asks for; each program has them:

``agent-settings``
    the items that common.core.agent_settings.encode makes, in parts.
``health`` ``results=[[target, well, reason], …]``
    results of checks, perhaps none; ``target`` as in the settings. Gives
    ``{"generation": N, "log_level": LEVEL}``: a new number means new settings.
``agent-health``
    what GET /health answers: ``{"status": "ok" | "degraded" | "down", …}``.
``metrics``
    rows of the settings' families (common.core.metrics), in parts.
``access-log`` ``most=N``
    ``{"records": [{…}, …], "reopen": N}``: at most so many of the oldest records, which are the
    agent's from then on; another ``reopen`` means that the file was moved away.
"""
