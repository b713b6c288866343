"""Whether a handoff is the balancer's, and of this moment; and if not, what is likely wrong."""

from __future__ import annotations

from common.core import handoff, tcp_options
from common.core.handoff import Binding
from common.core.keys import Keys
from common.core.ledger import Occurrence, Outcome
from common.core.segment import Segment
from packetbridge.core.context import Context
from packetbridge.core.entry import Entry

LONGEST_WAIT = 48.0  # seconds; the four bits of an epoch tell what is 64 before it from 64 after


class Doubt(Outcome):
    """Why a handoff was not believed."""

    BAD_MAC = "bad_handoff_mac"
    OLD_EPOCH = "old_handoff_epoch"


class Rotation(Occurrence):
    """While keys rotate."""

    OTHER_KEY = "handoffs_of_other_key"  # not of that which this bridge would sign with


def believed(
    context: Context, entry: Entry, segment: Segment, option: bytes, binding: Binding
) -> int | None:
    """The number of the attempt that ``segment`` is about, which carries a balancer's own and
    timely message; None where it does not, which is dropped and counted.

    The balancer knows the keys that it signs with: it is answered under the same.
    """
    signer, wall, attempt = _signed(context, segment, option, binding)
    if signer is not None and wall == context.wall and handoff.timely(option, wall):
        if signer is not context.keys.signing:
            context.ledger.counts[Rotation.OTHER_KEY] += 1
        entry.balancer_keys = signer
        return attempt
    if signer is None:
        context.ledger.drop(Doubt.BAD_MAC, segment.data)
        context.ledger.warn(
            "handoffs with a wrong MAC",
            "forged, or the balancer has another key (`check` names each host's), another VIP for "
            f"DSCP {entry.dscp}, or a clock that is more than a minute off",
        )
        return None
    context.ledger.drop(Doubt.OLD_EPOCH, segment.data)
    seconds = (handoff.epoch_of(option, wall) * handoff.EPOCH_SECONDS) - context.wall
    way = "ahead of" if seconds > 0 else "behind"
    context.ledger.warn(
        "handoffs of another time",
        f"the balancer's clock is about {abs(seconds):.0f} s {way} this host's, and "
        f"{handoff.EPOCH_SECONDS} s are allowed: is the time of both synchronised? (or replayed)",
    )
    return None


def _signed(
    context: Context, segment: Segment, option: bytes, binding: Binding
) -> tuple[Keys | None, float, int]:
    """As signed, of whichever attempt: nearly always the first."""
    accepted, wall = context.keys.accepted, context.wall
    signer = handoff.signer(accepted, option, binding, wall)
    if signer is not None:
        return signer, wall, 0
    for attempt in range(1, handoff.ATTEMPTS):
        signer = handoff.signer(accepted, option, binding._replace(attempt=attempt), wall)
        if signer is not None:
            return signer, wall, attempt
    return *signed(context, segment, option, binding), 0


def signed(
    context: Context, segment: Segment, option: bytes, binding: Binding
) -> tuple[Keys | None, float]:
    """The keys that a message of any time is authentic under, None if it is under none; and about
    which time it is of, in seconds since 1970."""
    accepted, wall = context.keys.accepted, context.wall
    signer = handoff.signer(accepted, option, binding, wall)
    if signer is None:
        wall = _senders_time(segment, wall)
        signer = handoff.signer(accepted, option, binding, wall)
    return signer, wall


def _senders_time(segment: Segment, wall: float) -> float:
    """Seconds since 1970 at the balancer, should its clock be another: what the client echoes is
    the balancer's timestamp, its milliseconds, from when the client opened the connection."""
    stamps = tcp_options.timestamps(segment.options)
    if stamps is None:
        return wall
    ahead = (stamps[1] - int(wall * 1000) + 2**31) % 2**32 - 2**31
    return max(wall + ahead / 1000 + LONGEST_WAIT, 0)
