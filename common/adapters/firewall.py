"""The programs' rules in iptables' raw table, in chains of their own.

Works with both kinds of iptables (nf_tables and legacy): whichever `iptables` is. A change is one
`iptables-restore` transaction: all of it or nothing, and other rules stay as they are.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

TIMEOUT = 15  # seconds for one command
LOCK_WAIT = 10  # seconds for another iptables to finish
HOOKS = {"IN": "PREROUTING", "OUT": "OUTPUT"}  # end of our chain's name: the chain it hangs in


class FirewallError(Exception):
    """A rule could not be read, set or removed; the text has the command's own message."""


class NotInstalled(FirewallError):
    """This host has no iptables."""


class Firewall:
    """The chains of one running program, hooked before all other rules of the raw table.

    `instance` tells apart several programs on one host: at most 18 letters, digits, '-', '_'
    (a chain's name has at most 28). Rules are `iptables-restore` arguments without `-A CHAIN`.
    `command` is the iptables to use; "-save" and "-restore" are appended to its name.
    """

    def __init__(
        self,
        instance: str,
        prerouting: Sequence[str],
        output: Sequence[str],
        command: str = "iptables",
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,18}", instance):
            raise ValueError(f"'{instance}' cannot be part of a chain's name")
        self._instance = instance
        self._rules = {"IN": list(prerouting), "OUT": list(output)}
        self._command = command

    def install(self) -> None:
        """Fill and hook the chains, in place of what an earlier run left behind.

        Raises FirewallError; the rules are then as they were.
        """
        chains = [self._chain(end) for end in HOOKS]
        hooks = [f"-I {hook} 1 -j {self._chain(end)}" for end, hook in HOOKS.items()]
        self._restore([f":{chain} -" for chain in chains] + self._unhook() + self._fill() + hooks)

    def remove(self) -> None:
        """Unhook and delete the chains; nothing happens where there are none.

        Raises FirewallError, for one where somebody else's rule jumps to a chain of ours.
        """
        saved = self._saved()
        chains = [self._chain(end) for end in HOOKS if self._declared(self._chain(end), saved)]
        if chains:
            flush = [f"-F {chain}" for chain in chains]
            self._restore(self._unhook() + flush + [f"-X {chain}" for chain in chains])

    def probe(self) -> None:
        """Load the rules into chains that nothing jumps to, and delete those: can this kernel?

        Raises FirewallError that says what it cannot.
        """
        scratch = Firewall(f"TRY-{os.getpid()}", self._rules["IN"], self._rules["OUT"])
        scratch._command = self._command
        scratch._restore([f":{scratch._chain(end)} -" for end in HOOKS] + scratch._fill())
        scratch.remove()

    def displaced(self) -> list[tuple[str, str]]:
        """Hooks whose first rule is not the jump to our chain, each with the chain's name."""
        saved = self._saved()
        found = []
        for end, hook in HOOKS.items():
            rules = [line for line in saved if line.startswith(f"-A {hook} ")]
            if rules[:1] != [f"-A {hook} -j {self._chain(end)}"]:
                found.append((hook, self._chain(end)))
        return found

    def emptied(self) -> list[str]:
        """Our chains that are gone, or have no rule."""
        saved = self._saved()
        chains = [self._chain(end) for end in HOOKS]
        return [
            chain for chain in chains if not any(line.startswith(f"-A {chain} ") for line in saved)
        ]

    def _chain(self, end: str) -> str:
        return f"L3DSR-{self._instance}-{end}"

    def _fill(self) -> list[str]:
        return [f"-A {self._chain(end)} {rule}" for end in HOOKS for rule in self._rules[end]]

    def _unhook(self) -> list[str]:
        """Lines that delete every jump to our chains: as many as there are."""
        jumps = {f"-A {hook} -j {self._chain(end)}" for end, hook in HOOKS.items()}
        return [f"-D{line[2:]}" for line in self._saved() if line in jumps]

    @staticmethod
    def _declared(chain: str, saved: Sequence[str]) -> bool:
        return any(line.startswith(f":{chain} ") for line in saved)

    def _saved(self) -> list[str]:
        return run(f"{self._command}-save", ["-t", "raw"]).splitlines()

    def _restore(self, lines: Sequence[str]) -> None:
        arguments = ["--noflush", f"--wait={LOCK_WAIT}"]
        run(f"{self._command}-restore", arguments, "\n".join(["*raw", *lines, "COMMIT", ""]))


def run(name: str, arguments: Sequence[str], text: str = "") -> str:
    """Output of iptables-save, or whichever of them, given ``text``; raises FirewallError."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise NotInstalled(f"{name} is not installed")
    call = [path, *arguments]
    try:
        done = subprocess.run(
            call,
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            start_new_session=True,  # a Ctrl-C at the terminal must not end it halfway
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"{' '.join(call)}: {error}") from None
    if done.returncode != 0:
        raise FirewallError(f"{' '.join(call)}: {done.stderr.strip()}{_culprit(done, text)}")
    return done.stdout


def _culprit(done: subprocess.CompletedProcess[str], text: str) -> str:
    """The rule whose line number an error message names (some name only the end: COMMIT)."""
    number = re.search(r"line:? (\d+)", done.stderr)
    lines = text.splitlines()
    if number is None or not 0 < int(number[1]) < len(lines):
        return ""
    return f" ({lines[int(number[1]) - 1]})"
