"""Which address, port and first numbers the server sees."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from packetbridge.core import sources
from packetbridge.core.config import Backend
from packetbridge.core.entry import Entry
from packetbridge.core.sources import TRIES, Sources

BRIDGE, SERVER = "203.0.113.20", "203.0.113.30"
CLIENT = bytes([198, 51, 100, 7])


def entry_of(source: str = "client", ports: tuple[int, int] = (20000, 20009)) -> Entry:
    backend = Backend(BRIDGE, 80, SERVER, 8080, source=source, ports=ports)
    return Entry(backend, 5, "192.0.2.10", 0x4C330000, True, False)


def reply_key(source: bytes) -> bytes:
    """Of the server's packets to ``source``: server, source address, port 8080, source port."""
    return bytes([203, 0, 113, 30]) + source[:4] + (8080).to_bytes(2, "big") + source[4:]


def port_of(source: bytes | None) -> int:
    assert source is not None
    return int.from_bytes(source[4:], "big")


@given(st.integers(1, 65535))
def test_the_clients_own_where_it_is_free(port: int) -> None:
    source = Sources().source(entry_of(), CLIENT, port, set())
    assert source == CLIENT + port.to_bytes(2, "big")


@given(st.integers(1, 65535))
def test_another_port_where_it_is_in_use(port: int) -> None:
    used: set[bytes] = set()
    seen = set()
    for turn in range(TRIES):
        source = Sources().source(entry_of(), CLIENT, port, used)
        assert source is not None
        assert source[:4] == CLIENT
        assert turn == 0 or port_of(source) >= 1024
        seen.add(source)
        used.add(reply_key(source))
    assert len(seen) >= TRIES - 1
    assert Sources().source(entry_of(), CLIENT, port, used) is None


def test_own_ports_take_turns_so_that_each_rests_longest() -> None:
    own = Sources()
    entry = entry_of("bridge", (20000, 20003))
    ports = [port_of(own.source(entry, CLIENT, 5, set())) for _ in range(9)]
    assert ports == [20000, 20001, 20002, 20003] * 2 + [20000]


def test_own_ports_in_use_are_passed_over() -> None:
    own = Sources()
    entry = entry_of("bridge", (20000, 20003))
    address = bytes([203, 0, 113, 20])
    used = {reply_key(address + port.to_bytes(2, "big")) for port in (20000, 20002)}
    assert [port_of(own.source(entry, CLIENT, 5, used)) for _ in range(3)] == [20001, 20003, 20001]


def test_no_own_port_left() -> None:
    address = bytes([203, 0, 113, 20])
    used = {reply_key(address + port.to_bytes(2, "big")) for port in range(20000, 20004)}
    assert Sources().source(entry_of("bridge", (20000, 20003)), CLIENT, 5, used) is None


def test_a_full_range_is_searched_on_where_the_last_search_ended() -> None:
    """More than one search can look at: the next one looks further."""
    own = Sources()
    entry = entry_of("bridge", (20000, 20199))
    address = bytes([203, 0, 113, 20])
    used = {reply_key(address + port.to_bytes(2, "big")) for port in range(20000, 20150)}
    found = [own.source(entry, CLIENT, 5, used) for _ in range(3)]
    assert found[:2] == [None, None]
    assert port_of(found[2]) == 20150


def test_two_entries_of_a_range_share_their_turns() -> None:
    own = Sources()
    first, second = entry_of("bridge"), entry_of("bridge")
    ports = [port_of(own.source(entry, CLIENT, 5, set())) for entry in (first, second, first)]
    assert ports == [20000, 20001, 20002]


@given(st.floats(0, 2**33), st.floats(0.001, 3600), st.integers(0, 65535))
def test_own_numbers_only_grow(wall: float, later: float, port: int) -> None:
    """Of one port, within half of the number space: 2.3 hours of ISN, 24 days of TSval."""
    isn = (sources.own_isn(wall + later, port) - sources.own_isn(wall, port)) % 2**32
    assert abs(isn - later * 250_000) <= 2
    stamp = (sources.own_stamp(wall + later) - sources.own_stamp(wall)) % 2**32
    assert abs(stamp - later * 1000) <= 2
