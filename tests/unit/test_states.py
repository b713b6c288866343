"""The bridge's states: the table as written here once more, and nothing besides."""

from __future__ import annotations

from itertools import product

import pytest

from packetbridge.core.states import Event, State, TransitionError, after

LIVE = ("handoff", "syn_sent", "spliced", "closing", "linger")
LISTED = {
    ("handoff", "syn_out"): "syn_sent",
    ("handoff", "passed_on"): "spliced",
    ("syn_sent", "syn_out"): "syn_sent",
    ("syn_sent", "connected"): "spliced",
    ("syn_sent", "unreachable"): "gone",
    ("syn_sent", "reset"): "gone",
    ("spliced", "unreachable"): "gone",
    ("spliced", "fin_one"): "closing",
    ("spliced", "reset"): "linger",
    ("closing", "fin_one"): "closing",
    ("closing", "fin_both"): "linger",
    ("closing", "reset"): "linger",
    ("linger", "fin_one"): "linger",
    ("linger", "fin_both"): "linger",
    ("linger", "reset"): "linger",
    ("linger", "revived"): "spliced",
    **{(state, "replaced"): "gone" for state in LIVE},
    **{(state, "expired"): "gone" for state in LIVE},
}


@pytest.mark.parametrize(("state", "event"), sorted(LISTED))
def test_listed(state: str, event: str) -> None:
    assert after(State(state), Event(event)) == LISTED[state, event]


@pytest.mark.parametrize(
    ("state", "event"),
    [pair for pair in product(map(str, State), map(str, Event)) if pair not in LISTED],
)
def test_unlisted_names_both(state: str, event: str) -> None:
    with pytest.raises(TransitionError) as raised:
        after(State(state), Event(event))
    assert str(raised.value) == f"event {event} is not listed for state {state}"
