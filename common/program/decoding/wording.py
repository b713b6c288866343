"""The words for one packet of a capture: addresses, options, flags, relative numbers."""

from common.core import handoff, tcp_options
from common.core.errors import MalformedError
from common.core.segment import ACK, FIN, MASK, PSH, RST, SYN, URG
from common.program.decoding.capture import Address, Seen
from common.program.decoding.dissector import HandoffOption, scale_text


def at(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def plural(count: int, what: str) -> str:
    return f"{count} {what}" + "s" * (count != 1)


def handoff_option(options: bytes) -> tuple[HandoffOption | None, str]:
    """Our option, if there is one, and what is wrong with the options ("" if nothing)."""
    try:
        raw = handoff.find(options)
    except MalformedError as error:
        return None, f"  [{error.reason}]"
    return (None if raw is None else HandoffOption(raw)), ""


def offer_words(options: bytes) -> str:
    """What a SYN or SYN-ACK offers."""
    try:
        offer = tcp_options.offer(options)
    except MalformedError as error:
        return f"[{error.reason}]"
    words = [f"mss={offer.mss}", f"wscale={scale_text(offer.scale)}"]
    words.append("sack" if offer.sack else "no-sack")
    words.append(
        "no-ts" if offer.timestamps is None else "ts={} tsecr={}".format(*offer.timestamps)
    )
    return " ".join(words + ["md5"] * offer.signed)


def answer_words(seen: Seen, c: int | None, option: HandoffOption) -> str:
    meaning = {
        handoff.Kind.ACCEPTED: "next byte",
        handoff.Kind.REFUSED: "the held segment comes back,",
        handoff.Kind.ENDED: "the connection is over,",
    }.get(option.kind, "")
    number = relative(seen.seq, c)
    if option.kind == handoff.Kind.ENDED and seen.length:
        meaning = f"the connection and {seen.length // handoff.ENDED_BYTES} more are over,"
    return f"{option.mysummary()}  {meaning} seq={number}{_length(seen)}"


def tcp_words(seen: Seen, seq_base: int | None, ack_base: int | None) -> str:
    """Flags, sequence and acknowledgment numbers less their bases (absolute without), window."""
    names = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"), (URG, "URG"))
    words = [",".join(name for flag, name in names if seen.flags & flag) or "no flags"]
    words.append(f"seq={relative(seen.seq, seq_base)}{_length(seen)}")
    if seen.flags & ACK:
        words.append(f"ack={relative(seen.ack, ack_base)}")
    words.append(f"win={seen.window}")
    return " ".join(words)


def relative(number: int, base: int | None) -> int:
    if base is None:
        return number
    distance = (number - base) & MASK
    return distance if distance < 2**31 else distance - 2**32


def _length(seen: Seen) -> str:
    return f" ({plural(seen.length, 'byte')})" if seen.length else ""
