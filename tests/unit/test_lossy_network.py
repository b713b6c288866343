"""Both cores between a client and a server whose network loses, repeats and reorders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.lossy_network import RESPONSE, Network

REQUEST = b"GET /a HTTP/1.1\r\nHost: h\r\nCookie: " + b"c" * 2500 + b"\r\n\r\n"
SEEDS = st.integers(0, 2**32)


def served(network: Network, pieces: list[tuple[int, float]]) -> None:
    """Run until the client has the response; exactly one connection, exactly these bytes."""
    client, server = network.client, network.server
    client.todo, client.pieces = REQUEST, list(pieces)
    client.start()
    network.run(120.0, lambda: client.reached == len(RESPONSE) or client.reset)
    assert not client.reset, network.balancer.core.ledger.counts + network.bridge.core.ledger.counts
    assert client.gathered == RESPONSE
    assert server.gathered == REQUEST
    assert server.connections == 1
    assert not network.resets


@pytest.mark.parametrize(
    "pieces",
    [[], [(5, 0.0), (9, 0.0)], [(1, 0.1)] * 30, [(3, 0.03)] * 10],
    ids=["at once", "in parts", "dribbled", "near the silence"],
)
def test_without_loss(pieces: list[tuple[int, float]]) -> None:
    served(Network(1, 0.0), pieces)


@given(SEEDS, st.sampled_from([0.02, 0.1, 0.2]))
def test_at_once(seed: int, loss: float) -> None:
    served(Network(seed, loss), [])


@given(
    SEEDS,
    st.sampled_from([0.02, 0.1]),
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from([0.0, 0.01, 0.06])), max_size=12),
)
def test_in_pieces(seed: int, loss: float, pieces: list[tuple[int, float]]) -> None:
    served(Network(seed, loss), pieces)
