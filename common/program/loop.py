"""The packet loop of both programs: queue, core, raw sockets, timers, signals, log."""

from __future__ import annotations

import errno
import gc
import logging
import select
import signal
import socket
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Protocol

from common.adapters.firewall import Firewall
from common.adapters.keyfile import KeyFileError
from common.adapters.packet_queue import PacketQueue
from common.adapters.raw_socket import RawSockets
from common.core.keys import Keys
from common.core.ledger import Ledger, Occurrence, Outcome
from common.program.logs import BoundedLog

FAREWELL = 3.0  # seconds at most for the core's last packets,
LAST_WORDS = 0.5  # and for what its peers have on their way meanwhile
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
MAX_SIGNALS = 16  # not yet heeded; who sends more gets an answer to the last ones
# Packets judged in one turn. SYNs wait in a queue of their own, which a flood of them fills; a few
# are judged between two looks at what established connections send, so that neither starves.
TURN, SYN_TURN = 64, 16
SYNS = 4096  # waiting at most, as many as a listener of Linux lets wait (somaxconn)
HOUSEKEEPING = 1.0  # seconds between looks at the clock's offset, the kernel's losses and the log
CLOCK_STEP = 0.5  # seconds in that time: no drift, nor slewing, is as fast

ReadKeys = Callable[[], Sequence[Keys]]  # may raise KeyFileError

log = logging.getLogger(__name__)


class Fault(Outcome):
    """What became of a packet that met an error of ours."""

    INTERNAL_ERROR = "internal_error"


class Loop(Occurrence):
    """What the loop counts besides. PACKETS are what the queue gave: outcomes add up to them."""

    PACKETS = "packets"
    QUEUE_LOST = "kernel_queue_lost"
    SYN_QUEUE_LOST = "kernel_syn_queue_lost"
    CLOCK_STEPS = "clock_steps"
    KEYS_READ = "key_file_read"
    KEYS_REFUSED = "key_file_refused"
    SEND_FAILED_ENOBUFS = "send_failed_enobufs"
    SEND_FAILED_EAGAIN = "send_failed_eagain"
    SEND_FAILED_EPERM = "send_failed_eperm"
    SEND_FAILED_ENETUNREACH = "send_failed_enetunreach"
    SEND_FAILED_EHOSTUNREACH = "send_failed_ehostunreach"
    SEND_FAILED_ENETDOWN = "send_failed_enetdown"
    SEND_FAILED_OTHER = "send_failed_other"
    TIMER_ERROR = "timer_error"  # an error of ours, without a packet


SEND_FAILED = {
    errno.ENOBUFS: Loop.SEND_FAILED_ENOBUFS,
    errno.EAGAIN: Loop.SEND_FAILED_EAGAIN,
    errno.EPERM: Loop.SEND_FAILED_EPERM,
    errno.ENETUNREACH: Loop.SEND_FAILED_ENETUNREACH,
    errno.EHOSTUNREACH: Loop.SEND_FAILED_EHOSTUNREACH,
    errno.ENETDOWN: Loop.SEND_FAILED_ENETDOWN,
}


class Core(Protocol):
    """What the loop runs: the balancer's core or the bridge's."""

    ledger: Ledger
    out: list[tuple[int, bytes]]

    def packet(self, data: bytes, now: float, mark: int) -> bytes | None: ...

    def gather(self, now: float) -> None:
        """A turn begins: what the kernel has noted until now comes before its packets."""

    def settle(self) -> None:
        """A turn is over, and most often no packet is waiting: what the kernel is given now
        overtakes none."""

    def next_deadline(self) -> float: ...

    def timers(self, now: float, wall_offset: float) -> None: ...

    def rekey(self, held: Sequence[Keys], now: float) -> str: ...

    def gauges(self) -> dict[str, int]: ...

    def counts(self) -> Counter[Outcome | Occurrence]: ...

    def farewell(self, now: float) -> Iterator[None]: ...


def wall_offset() -> float:
    """What to add to the monotonic time for seconds since 1970."""
    return time.time() - time.monotonic()


class Kernel(Protocol):
    """The fast path, if there is one: it is in place."""

    def detach(self) -> None: ...


class PacketLoop:
    """Runs ``core`` over queue ``number`` until SIGINT, SIGTERM or SIGQUIT; SIGUSR2 logs the
    counters, SIGHUP has ``read_keys`` called. Where SYNs come apart, ``syn_number`` is their
    queue."""

    def __init__(
        self,
        core: Core,
        number: int,
        read_keys: ReadKeys,
        syn_number: int | None = None,
        outlived: bool = False,
    ) -> None:
        """``outlived``: the kernel goes on with connections when SIGTERM ends the program."""
        self._may_be_outlived, self.outlived = outlived, False
        self._core = core
        self._read_keys = read_keys
        self._bounded = BoundedLog(log)
        self._raw = RawSockets()
        self._offset = wall_offset()
        self._housekeeping = 0.0
        self._due = 0.0
        self._stopping = False
        self._packets = 0
        self._signals: deque[int] = deque(maxlen=MAX_SIGNALS)
        self._queue = PacketQueue(number, self._judge)
        self._syn_queue = None
        if syn_number is not None:
            self._syn_queue = PacketQueue(syn_number, self._judge, SYNS)
        self._install_signals()  # before there is anything that a signal would leave behind

    def run(self) -> None:
        """Judge packets and run timers until a signal says to stop."""
        with _wakeups() as woken:
            turns = {self._queue.fileno(): (self._queue, TURN)}
            if self._syn_queue is not None:
                turns[self._syn_queue.fileno()] = self._syn_queue, SYN_TURN
            poll = select.poll()
            for descriptor in (*turns, woken.fileno()):
                poll.register(descriptor, select.POLLIN)
            # Nothing on the packets' way makes reference cycles, and a collection that walks a
            # million flows would hold packets up for as long.
            gc.collect()
            gc.freeze()
            gc.disable()
            while not self._stopping:
                wait = self._due - time.monotonic()
                ready = poll.poll(max(wait, 0) * 1000)
                self._between(partial(self._core.gather, time.monotonic()))
                for fd, _ in ready:
                    if fd == woken.fileno():
                        woken.recv(4096)
                    else:
                        queue, most = turns[fd]
                        queue.run(most)
                self._between(self._core.settle)
                self._heed_signals()
                now = time.monotonic()
                if now >= self._due:
                    self._timers(now)
            self._heed_signals()  # one may have come after the last look
            if not self.outlived and self._say_farewell():
                self._hear_last_words()

    def close(self) -> None:
        """Give the queue back, and write what was counted."""
        self._log_counters()
        self._queue.close()
        if self._syn_queue is not None:
            self._syn_queue.close()
        self._raw.close()

    def _judge(self, data: bytes, mark: int) -> bytes | None:
        now = time.monotonic()
        core = self._core
        self._packets += 1
        try:
            verdict = core.packet(data, now, mark)
        except Exception:  # an error of ours must not leave a packet in the queue for ever
            verdict = self._error(Fault.INTERNAL_ERROR, data)
        if core.out:
            self._send()
        ledger = core.ledger
        if ledger.notes or ledger.events or ledger.warnings:
            self._log_notes()
        if self._signals:
            self._heed_signals()
        # asked at each packet, as one may have set an earlier deadline, and as under load the
        # queue is never empty
        self._due = min(core.next_deadline(), self._housekeeping)
        if now >= self._due:
            self._timers(now)
        return verdict

    def _between(self, step: Callable[[], None]) -> None:
        """Do what is done between packets."""
        try:
            step()
        except Exception:  # connections that stand are not to end by it
            self._error(Loop.TIMER_ERROR, b"")
        if self._core.out:
            self._send()

    def _timers(self, now: float) -> None:
        if now >= self._housekeeping:
            self._look_at_clock()
            self._look_at_queues()
            self._bounded.flush()
            self._housekeeping = now + HOUSEKEEPING
        try:
            self._core.timers(now, self._offset)
        except Exception:
            self._error(Loop.TIMER_ERROR, b"")
        self._send()
        self._log_notes()
        self._due = min(self._core.next_deadline(), self._housekeeping)

    def _look_at_clock(self) -> None:
        """The time of day may have been set, here by hand or by whoever keeps it right."""
        offset = wall_offset()
        step, self._offset = offset - self._offset, offset
        if abs(step) >= CLOCK_STEP:
            self._core.ledger.counts[Loop.CLOCK_STEPS] += 1
            way = "forward" if step > 0 else "back"
            text = "this host's clock was set %s by %.1f s; connections are not affected, but new"
            text += " ones fail while the clocks of balancer and bridge differ"
            self._bounded.log(logging.WARNING, Loop.CLOCK_STEPS, text, way, abs(step))

    def _look_at_queues(self) -> None:
        self._look_at_queue(Loop.QUEUE_LOST, self._queue)
        if self._syn_queue is not None:
            self._look_at_queue(Loop.SYN_QUEUE_LOST, self._syn_queue)

    def _look_at_queue(self, name: Loop, queue: PacketQueue) -> None:
        counts, lost = self._core.ledger.counts, queue.lost()
        more, counts[name] = lost - counts[name], lost
        if more > 0:
            text = "%d packets that came faster than this program takes them, or while it stood"
            self._bounded.log(logging.WARNING, name, text, more)

    def _say_farewell(self) -> bool:
        """Send what the core has to tell its peers before it goes; whether there was anything."""
        now, said = time.monotonic(), False
        for _ in self._core.farewell(now):
            said = said or bool(self._core.out)
            self._send()
            if time.monotonic() - now > FAREWELL:
                log.warning("stopping: not all peers could be told in %s seconds", FAREWELL)
                break
        return said

    def _hear_last_words(self) -> None:
        """Judge what still comes."""
        until = time.monotonic() + LAST_WORDS
        while (wait := until - time.monotonic()) > 0:
            if select.select([self._queue], [], [], wait)[0]:
                self._queue.run(TURN)

    def _send(self) -> None:
        out, counts = self._core.out, self._core.ledger.counts
        for mark, packet in out:
            try:
                self._raw.send(mark, packet)
            except OSError as error:
                reason = SEND_FAILED.get(error.errno or 0, Loop.SEND_FAILED_OTHER)
                counts[reason] += 1
                self._bounded.log(logging.WARNING, reason, "%s: %s", _ends(packet), error.strerror)
        out.clear()

    def _error(self, name: Fault | Loop, data: bytes) -> bytes | None:
        self._core.ledger.counts[name] += 1
        where = traceback.format_exc()
        self._bounded.log(logging.ERROR, name, "%s: %s", _ends(data), where)
        return None

    def _log_notes(self) -> None:
        ledger = self._core.ledger
        for reason, packet in ledger.notes:
            self._bounded.log(logging.INFO, reason, "dropped %s", _ends(packet))
        ledger.notes.clear()
        for kind, text in ledger.warnings:
            self._bounded.log(logging.WARNING, kind, "%s", text)
        ledger.warnings.clear()
        for event in ledger.events:
            log.debug("%s", event)
        ledger.events.clear()

    def _log_counters(self) -> None:
        self._look_at_queues()
        counts = self._core.counts()
        counts[Loop.PACKETS] = self._packets
        numbers = [*self._core.gauges().items(), *sorted(counts.items())]
        log.info("counters %s", " ".join(f"{name}={count}" for name, count in numbers))
        self._send()  # what came to light

    def _install_signals(self) -> None:
        for number in (*STOPS, signal.SIGUSR2, signal.SIGHUP):
            signal.signal(number, self._signalled)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        """Only note it: this may run in the middle of anything, of writing to the log too."""
        self._signals.append(number)
        if number in STOPS:
            self._stopping = True

    def _heed_signals(self) -> None:
        while self._signals:
            number = self._signals.popleft()
            if number == signal.SIGUSR2:
                self._log_counters()
            elif number == signal.SIGHUP:
                self._reread_keys()
            else:
                log.info("stopping: %s", signal.Signals(number).name)
                self.outlived = self._may_be_outlived and number == signal.SIGTERM

    def _reread_keys(self) -> None:
        """A file that cannot be used changes nothing: who has replaced it looks at the log."""
        try:
            held = self._read_keys()
        except KeyFileError as error:
            self._core.ledger.counts[Loop.KEYS_REFUSED] += 1
            log.warning("SIGHUP: the keys stay as they are, as the %s", error)
            log.warning("SIGHUP: mend: %s; then send SIGHUP again", error.cure)
            return
        self._core.ledger.counts[Loop.KEYS_READ] += 1
        words = self._core.rekey(held, time.monotonic())
        log.info("SIGHUP: keys: %s; a changed configuration is read at the next start", words)


def run(
    core: Core,
    queue: int,
    firewall: Firewall,
    ready: Iterable[str],
    read_keys: ReadKeys,
    syn_queue: int | None = None,
    kernel: Kernel | None = None,
) -> None:
    """Run ``core`` with its rules in place, having logged the lines of ``ready``; removes all it
    set up, also when something fails on the way. ``read_keys`` is called for each SIGHUP.

    Where the ``kernel`` has connections, SIGTERM leaves all as it is instead: these go on without
    the program, and what is for the program waits for its next start to be sent again.

    Raises OSError, FirewallError or BpfError where something cannot be had.
    """
    loop = PacketLoop(core, queue, read_keys, syn_queue, outlived=kernel is not None)
    try:
        try:
            firewall.install()
            for line in ready:
                log.info("ready: %s", line)
            loop.run()
        finally:
            if not loop.outlived:
                firewall.remove()
                if kernel is not None:
                    kernel.detach()
    finally:
        loop.close()


@contextmanager
def _wakeups() -> Iterator[socket.socket]:
    """A socket that becomes readable with each signal, so that waiting ends at once."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(before)
        reading.close()
        writing.close()


def _ends(packet: bytes) -> str:
    """Source and destination of a packet, as far as it has them."""
    if len(packet) < 20:
        return f"{len(packet)} bytes"
    src, dst = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
    at = (packet[0] & 15) * 4
    if packet[9] not in (6, 17) or len(packet) < at + 4:
        return f"{src} -> {dst} protocol {packet[9]}"
    sport, dport = (
        int.from_bytes(packet[at : at + 2], "big"),
        int.from_bytes(packet[at + 2 : at + 4], "big"),
    )
    return f"{src}:{sport} -> {dst}:{dport}"
