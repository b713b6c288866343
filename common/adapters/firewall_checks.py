"""What a host's other firewall rules do to ours, as far as the rules themselves show it."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

from common.adapters.checks import Problem
from common.adapters.firewall import Firewall, FirewallError, run


def in_place(program: str, prerouting: Sequence[str], output: Sequence[str]) -> list[Problem]:
    """A running program's rules are there, and before all others: tools that load a whole firewall
    remove them."""
    firewall = Firewall(program, prerouting, output)
    try:
        gone, displaced = firewall.emptied(), firewall.displaced()
    except FirewallError as error:
        return [_unread(error)]
    if gone:
        what = f"{' and '.join(gone)} of the raw table: somebody has removed the rules"
        return [Problem(what, f"systemctl restart {program}")]
    return [
        Problem(
            f"raw {hook} does not begin with the jump to {chain}: packets may pass {program} by",
            f"while iptables -t raw -D {hook} -j {chain}; do :; done 2>/dev/null; "
            f"iptables -t raw -I {hook} 1 -j {chain}",
        )
        for hook, chain in displaced
    ]


def queue_intruders(queues: Container[int]) -> list[Problem]:
    """No other rule sends packets to our queues: they would be dropped as nobody's."""
    try:
        saved = run("iptables-save", []).splitlines()
    except FirewallError as error:
        return [_unread(error)]
    found, table = [], ""
    for line in saved:
        if line.startswith("*"):
            table = line[1:]
        number = re.search(r"--queue-num (\d+)", line)
        if number and int(number[1]) in queues and not line.startswith("-A L3DSR-"):
            what = f"'{line}' in {table} sends packets to queue {number[1]}, where they are dropped"
            found.append(Problem(what, f"iptables -t {table} -D {line[3:]}"))
    return found


def _unread(error: FirewallError) -> Problem:
    """The rules cannot be read: what to do about it `checks.firewall` says, which fails as well."""
    return Problem(f"not looked at: {error}", "as for the firewall rules above", fatal=False)
