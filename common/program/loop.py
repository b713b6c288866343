"""The packet loop of both programs: queue, core, raw sockets, timers, signals, log."""

from __future__ import annotations

import faulthandler
import gc
import logging
import select
import signal
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import NamedTuple

from common.adapters.firewall import Firewall
from common.adapters.keyfile import KeyFileError
from common.adapters.packet_queue import PacketQueue
from common.adapters.readable import readable
from common.adapters.supervisor import Supervisor
from common.adapters.watch import Watch
from common.core.keys import Keys
from common.core.ledger import Occurrence, Outcome
from common.program.core import Core, Kernel
from common.program.logs import BoundedLog
from common.program.sending import Sender, ends
from common.program.signals import Signals, wakeups

FAREWELL = 3.0  # seconds at most for the core's last packets,
LAST_WORDS = 0.5  # and for what its peers have on their way meanwhile
LOOKS = 0.25  # seconds between two looks at whether all has drained
STOP = 10.0  # seconds at most for all of a stop, rules included, but not for draining
# Packets judged in one turn. SYNs wait in a queue of their own, which a flood of them fills; a few
# are judged between two looks at what established connections send, so that neither starves. So do
# datagrams, whose senders nobody has proven, either: they get as much as connections do.
TURN, SYN_TURN = 64, 16
SYNS = 4096  # waiting at most, as many as a listener of Linux lets wait (somaxconn)
TIMERS = 0.002  # seconds in a turn for timers, where what they do in parts goes on
HOUSEKEEPING = 1.0  # seconds between looks at the clock's offset, the kernel's losses and the log
CLOCK_STEP = 0.5  # seconds in that time: no drift, nor slewing, is as fast

ReadKeys = Callable[[], Sequence[Keys]]  # may raise KeyFileError
Packet = Callable[[bytes, float, int], bytes | None]  # Core.packet
Out = list[tuple[int, bytes]]  # Core.out
Sent = Callable[[Out], None]

log = logging.getLogger(__name__)


class Fault(Outcome):
    """What became of a packet that met an error of ours."""

    INTERNAL_ERROR = "internal_error"


class Loop(Occurrence):
    """What the loop counts besides. PACKETS are what the queue gave: outcomes add up to them."""

    PACKETS = "packets"
    QUEUE_LOST = "kernel_queue_lost"
    SYN_QUEUE_LOST = "kernel_syn_queue_lost"
    DATAGRAM_QUEUE_LOST = "kernel_datagram_queue_lost"
    CLOCK_STEPS = "clock_steps"
    KEYS_READ = "key_file_read"
    KEYS_REFUSED = "key_file_refused"
    TIMER_ERROR = "timer_error"  # an error of ours, without a packet


class Queued(NamedTuple):
    """One of the kernel's queues: what it is called, how many of its packets are judged in a turn,
    and what counts those that it has lost."""

    name: str
    queue: PacketQueue
    turn: int
    lost: Loop


def wall_offset() -> float:
    """What to add to the monotonic time for seconds since 1970."""
    return time.time() - time.monotonic()


class PacketLoop:
    """Runs ``core`` over queue ``number`` until SIGINT, SIGTERM or SIGQUIT; SIGUSR2 logs the
    counters, SIGHUP has ``read_keys`` and ``reload`` called, SIGUSR1 ``reopen``. Where SYNs come
    apart, ``syn_number`` is their queue, and ``datagram_number`` that of UDP. ``watch`` is for what
    is done besides packets, one part of it in each turn.
    """

    def __init__(
        self,
        core: Core,
        number: int,
        read_keys: ReadKeys,
        syn_number: int | None = None,
        outlived: bool = False,
        drain: float = 0.0,
        datagram_number: int | None = None,
    ) -> None:
        """``outlived``: the kernel goes on with connections when SIGTERM ends the program. A stop
        that ends them waits for them for ``drain`` seconds."""
        self.drain = drain
        self._may_be_outlived, self.outlived = outlived, False
        self.core = self._core = core
        self._packet: Packet = core.packet
        self._read_keys = read_keys
        self.reload: Callable[[], None] | None = None
        self.reopen: Callable[[], None] | None = None
        self.watch = Watch()
        self.bounded = self._bounded = BoundedLog(log)
        self._sender = Sender(core.ledger.counts, self._bounded)
        self._sent: Sent | None = None
        self._offset = wall_offset()
        self._housekeeping = 0.0
        self._due = 0.0
        self._packets = 0
        self._supervisor = Supervisor()
        self._queues = [Queued("queue", PacketQueue(number), TURN, Loop.QUEUE_LOST)]
        if syn_number is not None:
            syns = PacketQueue(syn_number, SYNS)
            self._queues.append(Queued("syn_queue", syns, SYN_TURN, Loop.SYN_QUEUE_LOST))
        if datagram_number is not None:
            datagrams = PacketQueue(datagram_number)
            self._queues.append(Queued("datagram_queue", datagrams, TURN, Loop.DATAGRAM_QUEUE_LOST))
        self._signals = Signals()  # before there is anything that a signal would leave behind

    # --- for what is done besides packets ---

    def stop(self) -> None:
        """Stop as SIGINT does."""
        self._signals.note(signal.SIGINT)

    def counts(self) -> Counter[Outcome | Occurrence]:
        """All that was counted so far."""
        self._look_at_queues()
        counts = self._core.counts()
        counts[Loop.PACKETS] = self._packets
        return counts

    def waiting(self) -> dict[str, int]:
        """Packets in each of the kernel's queues, by its name."""
        return {name: queue.waiting() for name, queue, *_ in self._queues}

    @property
    def offset(self) -> float:
        """What to add to the monotonic time for seconds since 1970."""
        return self._offset

    def observe(self, packet: Packet | None, sent: Sent | None) -> None:
        """Have ``packet`` called in place of the core's, which it calls, and ``sent`` told of what
        is about to be sent; None for neither, as in the beginning."""
        self._packet = self._core.packet if packet is None else packet
        self._sent = sent

    # --- turns ---

    def run(self) -> None:
        """Judge packets and run timers until a signal says to stop."""
        with wakeups() as woken:
            watch = self.watch
            for each in self._queues:
                judge = partial(self._judge_waiting, each.queue, each.turn)
                watch.add(each.queue.fileno(), select.POLLIN, judge)
            watch.add(woken.fileno(), select.POLLIN, lambda _: _empty(woken))
            # Nothing on the packets' way makes reference cycles, and a collection that walks a
            # million flows would hold packets up for as long.
            gc.collect()
            gc.freeze()
            gc.disable()

            def turn(most_wait: float = HOUSEKEEPING) -> None:
                due = self._due if self._due < watch.due else watch.due
                ready = watch.ready(min(due - time.monotonic(), most_wait))
                self._between(partial(self._core.gather, time.monotonic()))
                watch.heed(ready)
                self._between(self._core.settle)
                self._log_notes()
                self._heed_signals()
                now = time.monotonic()
                if now >= watch.due:
                    self._between(partial(watch.step, now))
                # any of that may have given the core something to do
                self._due = min(self._core.next_deadline(), self._housekeeping)
                if now >= self._due:
                    self._timers(now)

            self._supervisor.ready()
            while not self._signals.stopping:
                turn()
            self._signals.stopping = False
            self._heed_signals()  # one may have come after the last look
            if self.drain and not self.outlived:
                self._let_end(turn)
            if not self.outlived and self._say_farewell():
                self._hear_last_words()

    def _let_end(self, turn: Callable[[float], None]) -> None:
        """Take turns, but no new connections, until those that there are have ended, the time is
        over, or another signal says to stop."""
        self._core.drain(time.monotonic())
        text = "draining: %s connections, for %s seconds at most; another signal stops at once"
        log.info(text, self._core.remaining(), self.drain)
        until = time.monotonic() + self.drain
        look = 0.0
        while not self._signals.stopping and (now := time.monotonic()) < until:
            if now >= look:
                if not self._core.remaining():
                    break
                look = now + LOOKS
            turn(min(LOOKS, until - now))
        self._heed_signals()
        log.info("drained: %s connections are left", self._core.remaining())

    def close(self) -> None:
        """Give the queue back, and write what was counted."""
        self._log_counters()
        for each in self._queues:
            each.queue.close()
        self._sender.close()
        self._supervisor.close()

    def _judge_waiting(self, queue: PacketQueue, most: int, _events: int = 0) -> None:
        """Take a turn: judge what waits, and only then have it all go on, in the same order. What
        the core needs of a processor's caches and what the kernel does, each drives out the other
        once in a turn, and not at every packet."""
        out, beforehand, judged = self._core.out, self._core.beforehand, []
        for packet, data, mark in queue.take(most):
            verdict = self._judge(data, mark)
            judged.append((packet, data, verdict, out[:], beforehand[:]))
            out.clear()
            beforehand.clear()
        for packet, data, verdict, sent, steps in judged:
            if steps:
                self._do(steps)
            if sent:
                self._sender.send(sent)
            queue.give(packet, data, verdict)

    def _judge(self, data: bytes, mark: int) -> bytes | None:
        self._packets += 1
        try:
            verdict = self._packet(data, time.monotonic(), mark)
        except Exception:  # an error of ours must not leave a packet in the queue for ever
            verdict = self._error(Fault.INTERNAL_ERROR, data)
        if self._sent is not None and self._core.out:
            self._sent(self._core.out)
        return verdict

    def _send(self, out: Out) -> None:
        """Send what came of no packet."""
        self._do(self._core.beforehand)
        if self._sent is not None:
            self._sent(out)
        self._sender.send(out)

    def _between(self, step: Callable[[], None]) -> None:
        """Do what is done between packets."""
        self._try(step)
        if self._core.out or self._core.beforehand:
            self._send(self._core.out)

    def _do(self, steps: list[Callable[[], None]]) -> None:
        """Do them all, and leave the list empty."""
        for step in steps:
            self._try(step)
        steps.clear()

    def _try(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except Exception:  # connections that stand are not to end by it
            self._error(Loop.TIMER_ERROR, b"")
            return False
        return True

    def _timers(self, now: float) -> None:
        if now >= self._housekeeping:
            self._look_at_clock()
            self._look_at_queues()
            self._bounded.flush()
            self._supervisor.alive()
            self._housekeeping = now + HOUSEKEEPING
        until, more = now + TIMERS, True
        while more:
            well = self._try(partial(self._core.timers, now, self._offset))
            self._send(self._core.out)
            now = time.monotonic()
            more = well and now < until and self._core.next_deadline() <= now
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
        counts = self._core.ledger.counts
        for _, queue, _, name in self._queues:
            lost = queue.lost()
            more, counts[name] = lost - counts[name], lost
            if more > 0:
                text = "%d packets that came faster than this program takes them, or while it stood"
                self._bounded.log(logging.WARNING, name, text, more)

    def _say_farewell(self) -> bool:
        """Send what the core has to tell its peers before it goes; whether there was anything."""
        now, said = time.monotonic(), False
        for _ in self._core.farewell(now):
            said = said or bool(self._core.out)
            self._send(self._core.out)
            if time.monotonic() - now > FAREWELL:
                log.warning("stopping: not all peers could be told in %s seconds", FAREWELL)
                break
        return said

    def _hear_last_words(self) -> None:
        """Judge what still comes."""
        queue = self._queues[0].queue
        until = time.monotonic() + LAST_WORDS
        while (wait := until - time.monotonic()) > 0:
            if readable(queue, wait):
                self._judge_waiting(queue, TURN)
        self._log_notes()

    def _error(self, name: Fault | Loop, data: bytes) -> bytes | None:
        self._core.ledger.counts[name] += 1
        where = traceback.format_exc()
        self._bounded.log(logging.ERROR, name, "%s: %s", ends(data), where)
        return None

    def _log_notes(self) -> None:
        ledger = self._core.ledger
        for reason, packet in ledger.notes:
            self._bounded.log(logging.INFO, reason, "dropped %s", ends(packet))
        ledger.notes.clear()
        for kind, text in ledger.warnings:
            self._bounded.log(logging.WARNING, kind, "%s", text)
        ledger.warnings.clear()
        for event in ledger.events:
            log.debug("%s", event)
        ledger.events.clear()

    def _log_counters(self) -> None:
        counts = self.counts()
        numbers = [*self._core.gauges().items(), *sorted(counts.items())]
        log.info("counters %s", " ".join(f"{name}={count}" for name, count in numbers))
        self._send(self._core.out)  # what came to light

    def _heed_signals(self) -> None:
        for number in self._signals.take():
            if number == signal.SIGUSR2:
                self._log_counters()
            elif number == signal.SIGUSR1:
                if self.reopen is not None:
                    self._between(self.reopen)
            elif number == signal.SIGHUP:
                self._supervisor.reloading()
                self._reread_keys()
                if self.reload is not None:
                    self._between(self.reload)
                self._supervisor.ready()
            else:
                log.info("stopping: %s", signal.Signals(number).name)
                self._supervisor.stopping(STOP + self.drain)
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
        later = "; a changed configuration is read at the next start" if self.reload is None else ""
        log.info("SIGHUP: keys: %s%s", words, later)


def _empty(woken: socket.socket) -> None:
    woken.recv(4096)


def run(
    core: Core,
    queue: int,
    firewall: Firewall,
    ready: Iterable[str],
    read_keys: ReadKeys,
    syn_queue: int | None = None,
    kernel: Kernel | None = None,
    drain: float = 0.0,
    beside: Callable[[PacketLoop], AbstractContextManager[object]] = nullcontext,
    datagram_queue: int | None = None,
) -> None:
    """Run ``core`` with its rules in place, having logged the lines of ``ready``; removes all it
    set up, also when something fails on the way. ``read_keys`` is called for each SIGHUP.
    ``beside`` sets up what the loop does besides packets, before there are any, and ends it.

    Where the ``kernel`` has connections, SIGTERM leaves all as it is instead: these go on without
    the program, and what is for the program waits for its next start to be sent again. Another stop
    waits up to ``drain`` seconds for connections to end.

    Raises OSError, FirewallError or BpfError where something cannot be had.
    """
    faulthandler.enable()  # a watchdog's SIGABRT has the log say where the program stood
    outlived = kernel is not None
    loop = PacketLoop(core, queue, read_keys, syn_queue, outlived, drain, datagram_queue)
    try:
        with beside(loop):
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
