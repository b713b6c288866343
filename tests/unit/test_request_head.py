"""A request's head put together from segments in any order, against a naive model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from balancer.core.request.head import MAX_SEGMENTS, Head, offset_of
from common.core.segment import Segment
from tests.unit import models
from tests.unit.scapy_oracle import tcp_packet

TEXT = bytes(range(256)) * 2
PIECES = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 30)), max_size=20)


def piece(
    at: int, size: int, *, flags: str = "A", options: bytes = b"", window: int = 500
) -> Segment:
    return Segment(
        tcp_packet(
            ("1.2.3.4", 5),
            ("6.7.8.9", 80),
            seq=at,
            flags=flags,
            payload=TEXT[at : at + size],
            options=options,
            window=window,
        )
    )


def kept_in(head: Head) -> int:
    """What the head holds, counted anew."""
    packets = sum(len(segment.data) + 500 for segment in head.packets.values())
    return packets + len(head.data) + sum(map(len, head.later.values()))


@given(PIECES, st.sets(st.integers(0, 19)))
def test_any_order_gives_the_text(pieces: list[tuple[int, int]], owning: set[int]) -> None:
    head, have, kept = Head(), set(), 0
    for turn, (at, size) in enumerate(pieces):
        more = head.add(at, piece(at, size))
        assert more is not None
        kept += more
        have |= set(range(at, at + size))
        whole = next(n for n in range(1000) if n not in have)
        assert head.data == TEXT[:whole]
        if turn in owning:
            kept -= head.own()
            assert head.owned == whole
            assert all(at >= whole for at in head.packets)
        assert kept == head.kept_bytes == kept_in(head)


@given(PIECES)
def test_what_is_forwarded_covers_what_came(pieces: list[tuple[int, int]]) -> None:
    """The client's own packets in order; with the first at 0 if the head has begun."""
    head = Head()
    for at, size in pieces:
        head.add(at, piece(at, size))
    packets = head.forwardable()
    assert [p.seq for p in packets] == sorted({at for at, _ in pieces})
    covered = {n for p in packets for n in range(p.seq, p.seq + len(p.payload))}
    assert covered == {n for at, size in pieces for n in range(at, at + size)}
    assert not head.data or packets[0].seq == 0


def test_the_longer_of_two_packets_is_kept_and_of_equals_the_newer() -> None:
    head = Head()
    head.add(0, piece(0, 5, window=1))
    head.add(0, piece(0, 9, window=2))
    head.add(0, piece(0, 7, window=3))
    head.add(0, piece(0, 9, window=4))
    assert [(len(p.payload), p.window) for p in head.forwardable()] == [(9, 4)]


def test_a_packet_again_with_fewer_options_is_kept_less() -> None:
    head = Head()
    assert head.add(0, piece(0, 5, options=b"\1" * 40)) == 20 + 20 + 40 + 5 + 500 + 5
    assert head.add(0, piece(0, 5)) == -40


def test_segments_are_bounded() -> None:
    head = Head()
    taken = [head.add(2 * n + 2, piece(2 * n + 2, 1)) for n in range(100)]
    assert taken.index(None) == MAX_SEGMENTS // 2, "behind a gap each counts twice"
    assert set(taken[MAX_SEGMENTS // 2 :]) == {None}


def test_the_newest_timestamps_and_window_are_noted() -> None:
    """Whatever the order, modulo 2**32."""
    head = Head()
    values = [(2**32 - 2, 9), (3, 8), (2**32 - 1, 7), (3, 6)]
    for n, (value, window) in enumerate(values):
        head.add(n, piece(n, 1, options=models.stamps(value, 77), window=window))
    assert head.stamp == (3, 77)
    assert head.window == 6


def test_a_fin_is_complete_when_nothing_before_it_is_missing() -> None:
    head = Head()
    head.add(5, piece(5, 3, flags="FA"))
    assert head.fin_at == 8
    assert not head.complete_fin()
    head.add(0, piece(0, 5))
    assert head.complete_fin()
    assert bytes(head.data) == TEXT[:8]


def test_a_bare_fin_is_forwarded_too() -> None:
    head = Head()
    head.add(0, piece(0, 5))
    head.add(5, piece(5, 0, flags="FA"))
    assert head.complete_fin()
    assert [p.seq for p in head.forwardable()] == [0, 5]


def test_owning_ends_the_count_of_segments() -> None:
    head = Head()
    for n in range(3):
        head.add(n, piece(n, 1))
    assert head.arrived == 3
    head.own()
    assert head.arrived == 0


@given(st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1))
def test_offsets_wrap(first: int, distance: int) -> None:
    assert offset_of((first + distance) % 2**32, first) == distance
