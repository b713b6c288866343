"""UDP: datagrams of known clients go on to their backends, those of new ones get one."""
