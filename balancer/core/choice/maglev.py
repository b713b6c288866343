"""Maglev hashing: from a key to a backend by one look-up in a table of M slots.

Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
section 3.4. Every backend has its own permutation of the slots, (offset + j * skip) mod M, which is
one because M is prime. The backends take turns, each turn claiming the backend's first slot that is
still free, until none is.

Weights are not in the paper. Here a backend's credit grows by weight / (highest weight) a round and
buys a turn when it reaches 1, which spreads the turns of a light backend evenly (Envoy's and
Katran's Maglev do likewise). With equal weights this is the paper's algorithm.

The keys below are fixed and public. Every balancer of a VIP, and an eBPF program beside it, must
come to the same table and the same slot, across restarts, without agreeing on anything but the
backends. They keep no secret: a client that wants one particular backend may as well ask for that
backend's paths.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from itertools import count, cycle, islice
from math import isqrt
from operator import eq
from typing import TypeVar

from common.core.siphash import siphash24

OFFSET_KEY = b"l3dsr.maglev.off"
SKIP_KEY = b"l3dsr.maglev.skp"
LOOKUP_KEY = b"l3dsr.maglev.key"
AGAIN_KEY = b"l3dsr.maglev.agn"

DEFAULT_SIZE = 65537
"""Slots: the paper's "small" table, good for some hundred backends within a few per cent."""

LADDER = (4099, 65537, 655373)
"""The sizes that are taken where none is configured."""

MAX_BACKENDS = 65536
"""An entry of the table is an unsigned 16-bit number."""

TURNS_AT_ONCE = 4096
"""Turns that are planned in one go; bounds the memory that a large table takes to build."""

LOOKS_AT_ONCE = 32768
"""Slots that are looked at in one step of a table's building, about: some milliseconds."""

LOOKUPS = 32
"""Look-ups for one key. Whom they have not met by then comes in a fixed order."""


def fitting(backends: int) -> int:
    """The table's size for that many backends: 100 slots for each as the paper advises (section
    3.4), or at least 10 in the largest. It depends on nothing else, as another size moves nearly
    every key."""
    small, usual, large = LADDER
    if backends <= small // 100:
        return small
    return usual if backends <= usual // 10 else large


def key_hash(key: bytes) -> int:
    """The hash of a key (a request's path, say) for `Table.lookup`: unsigned, 64 bits.

    It is the number that SipHash-2-4 defines, i.e. its 8 bytes read as little-endian.
    """
    return siphash24(LOOKUP_KEY, key)


def permutation(name: bytes, size: int) -> tuple[int, int]:
    """(offset, skip) of a backend's permutation: 0 <= offset < size, 1 <= skip < size."""
    offset = siphash24(OFFSET_KEY, name) % size
    skip = siphash24(SKIP_KEY, name) % (size - 1) + 1
    return offset, skip


def populate(
    permutations: Sequence[tuple[int, int]], weights: Sequence[int], size: int
) -> array[int]:
    """The table: for each of `size` slots (a prime) the index of its backend.

    `permutations` holds a pair (offset, skip) per backend, in the order in which they take turns.
    """
    return finish(populating(permutations, weights, size))


def populating(
    permutations: Sequence[tuple[int, int]], weights: Sequence[int], size: int
) -> Generator[None, None, array[int]]:
    """`populate` in steps of a few milliseconds each; a generator that returns the table."""
    table = array("H", bytes(2 * size))
    taken = bytearray(size)
    position = [offset for offset, _ in permutations]
    skips = [skip for _, skip in permutations]
    turn, free = turns(weights), size
    while free:
        # the fuller the table is, the more slots a turn has to look at: size / free, on average
        step = max(1, min(free, TURNS_AT_ONCE, LOOKS_AT_ONCE * free // size))
        for backend in islice(turn, step):
            slot, skip = position[backend], skips[backend]
            while taken[slot]:
                slot += skip
                if slot >= size:
                    slot -= size
            taken[slot] = 1
            table[slot] = backend
            position[backend] = slot
        free -= step
        yield
    return table


T = TypeVar("T")


def finish(steps: Generator[None, None, T]) -> T:
    """All steps of a building at once, and what it has built."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            built: T = done.value
            return built


def turns(weights: Sequence[int]) -> Iterator[int]:
    """Whose turn it is, without end.

    By its credit a backend takes its k-th turn in round ceil(k * highest / weight), rounds counted
    from 1; within a round, the order is that of the backends. To sort the turns of many rounds says
    the same as going through them, and costs no more when one weight dwarfs the others.
    """
    highest = max(weights)
    if min(weights) == highest:
        yield from cycle(range(len(weights)))
    rounds = 1 + TURNS_AT_ONCE * highest // sum(weights)
    for first in count(0, rounds):
        schedule = sorted(
            (-(-turn * highest // weight), backend)
            for backend, weight in enumerate(weights)
            for turn in range(
                first * weight // highest + 1, (first + rounds) * weight // highest + 1
            )
        )
        yield from (backend for _, backend in schedule)


class Table:
    """The backends' table. It depends on names and weights, not on the order they are given in.

    Results are indices into `names` as given. A backend of weight 0 gets no slot; nor does one
    whose part of the total weight is less than a slot.
    """

    __slots__ = ("_by_name", "_count", "entries", "size")

    def __init__(
        self,
        names: Sequence[bytes | str],
        weights: Sequence[int],
        size: int = DEFAULT_SIZE,
    ) -> None:
        """Raise ValueError if the size is no prime or the backends do not make a table."""
        finish(self._populating(names, weights, size))

    @classmethod
    def building(
        cls, names: Sequence[bytes | str], weights: Sequence[int], size: int = DEFAULT_SIZE
    ) -> Generator[None, None, Table]:
        """The table in steps of a few milliseconds each, returned at the end."""
        table = cls.__new__(cls)
        yield from table._populating(names, weights, size)
        return table

    def _populating(
        self, names: Sequence[bytes | str], weights: Sequence[int], size: int
    ) -> Generator[None, None, None]:
        encoded = [name.encode() if isinstance(name, str) else name for name in names]
        _validate(encoded, weights, size)
        order = sorted(range(len(encoded)), key=encoded.__getitem__)
        permutations = [permutation(encoded[index], size) for index in order]
        by_turn = yield from populating(permutations, [weights[index] for index in order], size)
        self.size = size
        in_order = all(map(eq, order, count()))  # then the table is right as it is, however large
        self.entries = by_turn if in_order else array("H", [order[entry] for entry in by_turn])
        self._by_name = order
        self._count = len(order)

    def lookup(self, hash64: int) -> int:
        """The backend for a key's hash (`key_hash`)."""
        return self.entries[hash64 % self.size]

    def order(self, hash64: int) -> Iterator[int]:
        """All backends for a key's hash, each once: the first is `lookup`'s.

        The next ones are those of further look-ups, by hashes of the hash, so that the keys of one
        backend go to all others in proportion to their slots. After LOOKUPS of them the rest comes
        by name, from a place on that the hash says.
        """
        met = {self.entries[hash64 % self.size]}
        yield from met
        again = hash64.to_bytes(8, "little")
        for number in range(1, LOOKUPS):
            if len(met) == self._count:
                return
            hashed = siphash24(AGAIN_KEY, again + number.to_bytes(4, "little"))
            index = self.entries[hashed % self.size]
            if index not in met:
                met.add(index)
                yield index
        start = hash64 % self._count
        for index in self._by_name[start:] + self._by_name[:start]:
            if index not in met:
                yield index

    def share(self) -> list[int]:
        """Slots of each backend, in the order of `names`; together `size`."""
        slots = Counter(self.entries)
        return [slots[index] for index in range(self._count)]


def _validate(names: Sequence[bytes], weights: Sequence[int], size: int) -> None:
    if not is_prime(size):
        raise ValueError(f"a Maglev table's size must be a prime, {size} is none")
    if len(names) != len(weights):
        raise ValueError(f"{len(names)} backends, but {len(weights)} weights")
    if len(names) > min(size, MAX_BACKENDS):
        raise ValueError(f"{len(names)} backends are too many for a table of {size} slots")
    if len(set(names)) != len(names):
        raise ValueError("two backends have the same name")
    if min(weights, default=0) < 0:
        raise ValueError(f"a weight must not be negative: {min(weights)}")
    if max(weights, default=0) == 0:
        raise ValueError("no backend has a weight above 0")


def is_prime(number: int) -> bool:
    """By trial division: a table's size is small."""
    return number > 1 and all(number % factor for factor in range(2, isqrt(number) + 1))
