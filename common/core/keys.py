"""Keys for each purpose, derived from those that the hosts share, and which of them are in force.

Separate keys mean that a value made for one purpose (a cookie that a client can read off its
SYN-ACK) is worth nothing for another (a handoff).

What is sent is signed with one key; what comes may be signed with any in force. So a key can be
replaced while connections are made: all hosts accept the new one before any signs with it.
"""

from __future__ import annotations

# What hashlib has, without the OpenSSL that it loads: 4 MB of each process.
from _blake2 import blake2b
from collections.abc import Sequence
from dataclasses import dataclass

KEY_BYTES = 16  # a SipHash-2-4 key
NAME_BYTES = 4
# That a key is accepted which the key file does not hold any more. What was signed with it is good
# for two minutes at most (a SYN cookie; a handoff for 24 seconds); the rest is time to tell all
# hosts of a new file.
RETIRED_SECONDS = 300.0
MOST_RETIRED = 2


@dataclass(frozen=True, slots=True)
class Keys:
    """16 bytes each: SYN cookies, balancer to bridge, bridge to balancer. ``name`` is 8 hexadecimal
    digits that tell one shared key from another, and nothing else of it."""

    cookie: bytes
    handoff: bytes
    answer: bytes
    name: str


class Keyring:
    """``signing`` is for what is sent, ``accepted`` (it first of all) for what comes. Times are
    monotonic seconds."""

    __slots__ = ("_held", "_retired", "accepted", "signing")

    def __init__(self, held: Sequence[Keys]) -> None:
        self._held = tuple(held)
        self._retired: dict[Keys, float] = {}  # until when
        self._arrange()

    def replace(self, held: Sequence[Keys], now: float) -> None:
        """Hold these from now on, the first to sign with; those that go are accepted for
        RETIRED_SECONDS more."""
        gone = self._retired | {
            keys: now + RETIRED_SECONDS for keys in self._held if keys not in self._retired
        }
        self._held = tuple(held)
        remaining = [(keys, until) for keys, until in gone.items() if keys not in self._held]
        self._retired = dict(remaining[-MOST_RETIRED:])
        self._arrange()

    def expire(self, now: float) -> None:
        """Forget the retired keys whose time is over."""
        if self._retired and min(self._retired.values()) <= now:
            self._retired = {keys: until for keys, until in self._retired.items() if until > now}
            self._arrange()

    def __str__(self) -> str:
        words = [f"{self.signing.name} signs"]
        words += [f"{keys.name} is accepted too" for keys in self._held[1:]]
        words += [f"{keys.name} for {RETIRED_SECONDS:.0f} s more" for keys in self._retired]
        return ", ".join(words)

    def _arrange(self) -> None:
        self.signing = self._held[0]
        self.accepted = (*self._held, *self._retired)


def derive(shared: bytes) -> Keys:
    """Keys from ``shared`` (any length from 16 to 64 bytes) by keyed BLAKE2b (RFC 7693)."""
    cookie, handoff, answer = (
        _derive(shared, purpose, KEY_BYTES) for purpose in (b"cookie", b"handoff", b"answer")
    )
    return Keys(cookie, handoff, answer, _derive(shared, b"name", NAME_BYTES).hex())


def _derive(shared: bytes, purpose: bytes, size: int) -> bytes:
    return blake2b(key=shared, digest_size=size, person=b"l3dsr-" + purpose).digest()
