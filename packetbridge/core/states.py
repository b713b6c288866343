"""The life of a flow at the bridge, as a table.

    HANDOFF   a valid handoff has come, or a SYN of what nobody reads; nothing is sent yet
    SYN_SENT  the server is being asked; what the client sends is held
    SPLICED   both connections stand, and packets are translated
    CLOSING   one side has ended (FIN), the other has not
    LINGER    both have, or one has reset: late packets are still translated
    GONE      forgotten, but for a note that refuses the same handoff again

An event that the table does not list for a state is an error in this program, not in a packet:
whoever raises an event has looked at the packet and at the state before.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    HANDOFF = "handoff"
    SYN_SENT = "syn_sent"
    SPLICED = "spliced"
    CLOSING = "closing"
    LINGER = "linger"
    GONE = "gone"


class Event(StrEnum):
    SYN_OUT = "syn_out"  # a SYN was sent to the server, the first or again
    PASSED_ON = "passed_on"  # the client's own SYN goes to the server: both make the handshake
    CONNECTED = "connected"  # the server's SYN-ACK came and what was held is on its way
    UNREACHABLE = "unreachable"  # the server reset or did not answer: given back to the balancer
    FIN_ONE = "fin_one"  # one side has ended
    FIN_BOTH = "fin_both"
    RESET = "reset"  # a RST passed, from either side
    REVIVED = "revived"  # a side goes on after its RST, so it was not its own
    REPLACED = "replaced"  # a newer connection of the same addresses, or the balancer's word
    EXPIRED = "expired"


class TransitionError(Exception):
    """An event that its state does not know."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"event {event.value} is not listed for state {state.value}")


_S, _E = State, Event

TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.HANDOFF, _E.SYN_OUT): _S.SYN_SENT,
    (_S.HANDOFF, _E.PASSED_ON): _S.SPLICED,
    (_S.SYN_SENT, _E.SYN_OUT): _S.SYN_SENT,
    (_S.SYN_SENT, _E.CONNECTED): _S.SPLICED,
    (_S.SYN_SENT, _E.UNREACHABLE): _S.GONE,
    (_S.SYN_SENT, _E.RESET): _S.GONE,
    (_S.SPLICED, _E.UNREACHABLE): _S.GONE,
    (_S.SPLICED, _E.FIN_ONE): _S.CLOSING,
    (_S.SPLICED, _E.RESET): _S.LINGER,
    (_S.CLOSING, _E.FIN_ONE): _S.CLOSING,
    (_S.CLOSING, _E.FIN_BOTH): _S.LINGER,
    (_S.CLOSING, _E.RESET): _S.LINGER,
    (_S.LINGER, _E.FIN_ONE): _S.LINGER,
    (_S.LINGER, _E.FIN_BOTH): _S.LINGER,
    (_S.LINGER, _E.RESET): _S.LINGER,
    (_S.LINGER, _E.REVIVED): _S.SPLICED,
    **{(state, _E.REPLACED): _S.GONE for state in _S if state is not _S.GONE},
    **{(state, _E.EXPIRED): _S.GONE for state in _S if state is not _S.GONE},
}


def after(state: State, event: Event) -> State:
    """The state after ``event``; raises TransitionError where the table lists none."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise TransitionError(state, event) from None
