"""The only code that does I/O: netfilter queues, raw sockets, firewall rules, host facts."""
