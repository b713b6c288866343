"""Both cores between a client and a server whose network loses, repeats and reorders."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lossy_network import RESPONSE, Network

REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\nCookie: " + b"c" * 2500 + b"\r\n\r\n"
SEEDS = st.integers(0, 2**32)
PIECES = st.lists(
    st.tuples(st.integers(1, 30), st.sampled_from([0.0, 0.01, 0.06])), max_size=12
)  # bytes, and the seconds that the client pauses after them
GIVEN_UP = (
    "handoff_unanswered",
    "unknown_flow_reset",
    "handoff_unconfirmed",
    "owed_bytes_unacknowledged",
    "backend_silent",
)
UNAVAILABLE = b"HTTP/1.1 503 "


def run(network: Network, pieces: list[tuple[int, float]]) -> None:
    """Until the client has the response, a reset, or the balancer's word that nobody is there.
    Whatever happens, no byte is wrong and no request is executed twice."""
    client, server = network.client, network.server
    client.todo, client.pieces = REQUEST, list(pieces)
    client.start()
    network.run(
        300.0,
        lambda: (
            client.reached == len(RESPONSE)
            or client.reset
            or client.gathered.startswith(UNAVAILABLE)
        ),
    )
    assert RESPONSE.startswith(client.gathered) or client.gathered.startswith(UNAVAILABLE)
    assert REQUEST.startswith(server.gathered)
    assert server.connections <= 1


def served(network: Network, pieces: list[tuple[int, float]]) -> None:
    run(network, pieces)
    assert network.client.gathered == RESPONSE
    assert network.server.gathered == REQUEST
    assert not network.resets


@pytest.mark.parametrize(
    "pieces",
    [[], [(5, 0.0), (9, 0.0)], [(1, 0.1)] * 30, [(3, 0.03)] * 10],
    ids=["at once", "in parts", "dribbled", "near the silence"],
)
def test_without_loss(pieces: list[tuple[int, float]]) -> None:
    served(Network(1, 0.0), pieces)


@given(SEEDS, PIECES)
def test_little_loss_is_made_good(seed: int, pieces: list[tuple[int, float]]) -> None:
    served(Network(seed, 0.01), pieces)


@pytest.mark.parametrize(
    "setting",
    [{"source": "bridge"}, {"hold_handshake": "on"}, {"local": False}, {"stamps": False}],
    ids=["own source", "held handshake", "remote server", "server without timestamps"],
)
@given(SEEDS, PIECES)
def test_little_loss_is_made_good_in_every_setting(
    setting: dict[str, Any], seed: int, pieces: list[tuple[int, float]]
) -> None:
    served(Network(seed, 0.01, **setting), pieces)


@pytest.mark.parametrize("pieces", [[], [(5, 0.1)], [(5, 0.1), (2000, 0.0)]])
@pytest.mark.parametrize("copies", range(1, 6))
def test_handoffs_lost_again_and_again(copies: int, pieces: list[tuple[int, float]]) -> None:
    network = Network(1, 0.0)
    network.handoffs_to_lose = copies
    served(network, pieces)
    assert network.handoffs_to_lose == 0


@given(SEEDS)
def test_a_whole_request_withstands_much_loss(seed: int) -> None:
    served(Network(seed, 0.1), [])


@given(SEEDS, PIECES)
def test_much_loss_is_made_good_or_the_end_has_a_name(
    seed: int, pieces: list[tuple[int, float]]
) -> None:
    network = Network(seed, 0.2)
    run(network, pieces)
    if network.client.reset or network.client.gathered.startswith(UNAVAILABLE):
        counts = network.balancer.core.ledger.counts + network.bridge.core.ledger.counts
        assert any(counts[name] for name in GIVEN_UP)
    else:
        assert network.client.gathered == RESPONSE
