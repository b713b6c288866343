"""The probe's diagnosis, of what was seen; tests/e2e/test_probe.py makes the faults themselves."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, create_server, socket
from typing import Any

import pytest
from click.testing import CliRunner

from balancer.program.probe import diagnosis, steps
from balancer.program.probe.attempt import Attempt
from balancer.program.probe.cli import probe
from balancer.program.probe.seen import Seen, Signs, Told
from balancer.program.probe.wanted import wanted
from common.adapters import host_signs
from common.adapters.datagram_exchange import DatagramExchange, Exchanged
from common.adapters.exchange import Failure
from common.adapters.greeting import GreetedConnection
from common.adapters.http_exchange import HttpConnection, Request
from common.program.examination import Verdict

VIP, BRIDGE, CLIENT = "203.0.113.10", "203.0.113.20", "198.51.100.1"
BALANCER, FIRST, HERE = f"balancer {VIP}", f"bridge {BRIDGE}", "this host"
WAY = {"address": BRIDGE, "dscp": 1, "server": "203.0.113.30:80", "up": True, "reason": ""}
HOST = {"counters": {}, "strict": [], "forwards": True, "no_route": {}}
BACKEND = {
    "pool": "web",
    "name": "one",
    "bridge": BRIDGE,
    "port": 9320,
    "state": "up",
    "reason": "",
}
HANDED = {"id": "f", "state": "handed", "pool": "web", "backend": "one", "bridge": BRIDGE}
SPLICED = {"id": "f", "state": "spliced", "server": "203.0.113.30:80", "answered": True}
WELL = Request(0.001, 0.002, 0.003, 200, 16, reusable=True)
SILENT = Request(failure=Failure.SILENCE, words="no answer in time")


def told(at: str, flow: Any = None, host: Any = None, trouble: str = "", **grown: int) -> Told:
    """Of either program, before and after; ``grown`` are its counters' growths."""
    service = {"name": "web", "dscp": 1, "backends": [BACKEND]}
    before = {
        "service": service,
        "ways": [WAY | dict.fromkeys(("opened", "refused", "silent", "reset"), 0)],
        "counters": {},
        "host": HOST,
        "flow": None,
    }
    after = copy.deepcopy(before) | {"flow": flow, "counters": grown, "host": HOST | (host or {})}
    return Told(at, before, after, trouble=trouble) if not trouble else Told(at, trouble=trouble)


def balancer(flow: Any = None, host: Any = None, trouble: str = "", **grown: int) -> Told:
    if flow is not None:
        flow = {"tried": [], "said": "", **flow}
    return told(f"{VIP}:9310", flow, host, trouble, **grown)


def bridge(flow: Any = None, host: Any = None, trouble: str = "", **grown: int) -> Told:
    return told(f"{BRIDGE}:9320", flow, host, trouble, **grown)


def seen(
    its: Told,
    bridges: Told,
    request: Request | None = SILENT,
    failure: Failure | None = None,
    here: Any = None,
) -> Seen:
    made = Attempt(
        client=f"{CLIENT}:40000",
        handshake=None if request is None else 0.001,
        failure=failure,
        words="no answer in time",
        request=request,
    )
    return of(made, its, bridges, f"http://{VIP}/", here)


def of(made: Attempt, its: Told, bridges: Told, url: str, here: Any = None) -> Seen:
    """The same of any attempt at a URL."""
    send = "x" if url.startswith("udp") else None
    return Seen(
        wanted=wanted(url, None, None, send, None, (), 1.0, None),
        made=made,
        own=Signs(HOST, HOST | (here or {})),
        balancer=its,
        bridges={BRIDGE: bridges},
    )


def faults(what: Seen) -> dict[str, str]:
    """By subject, what is not ok with what mends it, steps left out."""
    found: dict[str, str] = {}
    for line in diagnosis.lines(what):
        if line.verdict is Verdict.NOT_OK and line.mend:
            text = f"{line.found} => {line.mend}"
            found[line.subject] = found.get(line.subject, "") + text
    return found


def only(what: Seen, subject: str) -> str:
    """The only subject that is not ok."""
    found = faults(what)
    assert list(found) == [subject]
    return found[subject]


def dropped(count: int) -> dict[str, Any]:
    return {"counters": {"TcpExt.IPReversePathFilter": count}, "strict": ["eth1"]}


# --- no handshake ---


def test_a_balancer_that_did_not_see_a_syn() -> None:
    what = seen(balancer(), bridge(), None, Failure.SILENCE)
    assert "none of this host's SYNs reached it" in only(what, BALANCER)


def test_answers_to_syns_that_are_lost() -> None:
    what = seen(balancer(fast_syns=2, syn=1), bridge(), None, Failure.SILENCE)
    assert "it answered 3 SYNs" in only(what, BALANCER)


def test_a_balancer_without_a_route_to_the_client() -> None:
    lacks = {"no_route": {CLIENT: "network is unreachable"}}
    what = seen(balancer(host=lacks, syn=1), bridge(), None, Failure.SILENCE)
    assert f"ip route replace {CLIENT} via ROUTER" in only(what, BALANCER)


def test_a_firewall_on_the_balancers_host() -> None:
    what = seen(balancer(send_failed_eperm=2, syn=2), bridge(), None, Failure.SILENCE)
    assert "its firewall does not let them out" in only(what, BALANCER)


def test_a_balancer_that_stands_still() -> None:
    stuck = balancer(trouble="the packet process has not answered within 0.8 s")
    assert "stands still" in only(seen(stuck, bridge(), None, Failure.SILENCE), BALANCER)


def test_an_address_that_nobody_has() -> None:
    what = seen(balancer(trouble="no answer"), bridge(), None, Failure.UNREACHABLE)
    assert f"nobody has {VIP}" in only(what, BALANCER)


def test_rules_that_somebody_flushed() -> None:
    what = seen(balancer(), bridge(), None, Failure.REFUSED)
    assert "its rules are not in force" in only(what, BALANCER)


def test_a_filter_here() -> None:
    what = seen(balancer(), bridge(), None, Failure.SILENCE, dropped(2))
    assert "rp_filter is strict on eth1" in only(what, HERE)


# --- handed over, and not served ---

NOT_TAKEN = [
    (bridge(bad_handoff_mac=2), "another key"),
    (bridge(no_entry=1), "not with DSCP 1"),
    (bridge(host={"counters": {"Tcp.OutRsts": 3}}), "not with DSCP 1"),
    (bridge(host=dropped(4)), "reverse-path filter dropped 4"),
    (bridge(draining=1), "it took no handoff (draining +1)"),
    (bridge(), "no handoff reached it"),
    (bridge(trouble="connection refused"), "no packetbridge runs there"),
    (bridge(trouble="the packet process is gone"), "stands still"),
    (bridge(trouble="no answer within 1 s"), "why could not be asked"),
]


@pytest.mark.parametrize(("there", "said"), NOT_TAKEN, ids=[said for _, said in NOT_TAKEN])
def test_a_handoff_that_was_not_taken(there: Told, said: str) -> None:
    """Likewise where the other bridge serves in its place."""
    assert said in only(seen(balancer(HANDED), there), FIRST)
    elsewhere = {**HANDED, "bridge": "203.0.113.21", "tried": [BRIDGE]}
    assert said in only(seen(balancer(elsewhere), there, WELL), FIRST)


def test_a_clock_that_is_wrong() -> None:
    there = bridge(bad_handoff_mac=2)
    off = Told(there.at, there.before, there.after, ahead=-30.0)
    assert "its clock is 30 s behind the balancer's" in only(seen(balancer(HANDED), off), FIRST)


def test_a_way_in_that_is_not_configured() -> None:
    there = bridge()
    other = Told(there.at, there.before, {**there.after, "ways": []})
    assert "no way in for 203.0.113.10 port 80 with DSCP 1" in only(
        seen(balancer(HANDED), other), FIRST
    )


BALANCERS_HOST: list[tuple[dict[str, Any], str]] = [
    (dropped(3), "reverse-path filter dropped 3"),
    ({"forwards": False}, "net.ipv4.ip_forward=1"),
    ({"no_route": {BRIDGE: "no route to host"}}, f"no route to the bridge {BRIDGE}"),
]


@pytest.mark.parametrize(("host", "said"), BALANCERS_HOST)
def test_a_balancers_host_that_keeps_handoffs_back(host: dict[str, Any], said: str) -> None:
    assert said in only(seen(balancer(HANDED, host), bridge()), BALANCER)


# --- taken, and no response ---

ASKING = SPLICED | {"state": "syn_sent", "answered": False}
NO_RESPONSE = [
    (bridge(ASKING), "does not answer, or its answers do not pass"),
    (bridge(ASKING, {"no_route": {CLIENT: "unreachable"}}), f"no route to the client {CLIENT}"),
    (bridge(SPLICED, {"counters": {"Ip.OutNoRoutes": 2}}), "2 packets for want of a route"),
    (bridge(SPLICED | {"answered": False}), "has the connection, and has not answered yet"),
    (bridge(SPLICED), "lost on the way here"),
    (bridge(SPLICED, send_failed_eperm=1), "its firewall does not let them out"),
]


@pytest.mark.parametrize(("there", "said"), NO_RESPONSE, ids=[said for _, said in NO_RESPONSE])
def test_a_response_that_did_not_come(there: Told, said: str) -> None:
    assert said in only(seen(balancer(HANDED), there), FIRST)


def test_a_filter_here_that_drops_responses() -> None:
    what = seen(balancer(HANDED), bridge(SPLICED), here=dropped(5))
    assert "reverse-path filter dropped 5" in only(what, HERE)


# --- the balancer's own ---


def test_a_rate_limit() -> None:
    flow = {**HANDED, "state": "closed", "backend": None, "said": "HTTP/1.1 429 Too Many Requests"}
    limited = Request(0.001, 0.002, 0.003, 429)
    what = seen(balancer(flow | {"bridge": None}), bridge(), limited)
    assert "[pools.limit]" in only(what, BALANCER)


def test_a_request_that_was_reset() -> None:
    reset = Request(failure=Failure.RESET, words="connection reset by peer")
    assert "counted no_route +1" in only(seen(balancer(no_route=1), bridge(), reset), BALANCER)


def test_a_client_whose_address_is_translated() -> None:
    assert "knows no connection of 198.51.100.1:40000" in only(seen(balancer(), bridge()), BALANCER)


def test_what_filters_dropped_beside_a_probe_that_went_well_is_a_warning() -> None:
    what = seen(balancer(HANDED), bridge(SPLICED, dropped(1)), WELL)
    assert faults(what) == {}
    assert [x.subject for x in diagnosis.lines(what) if x.verdict is Verdict.WARNING] == [FIRST]


# --- services that are not HTTP ---

STEERED = {"id": "f", "state": "opening", "pool": "web", "backend": "one", "bridge": BRIDGE}
MAPPED = STEERED | {"state": "mapped"}
UNHEARD = SPLICED | {"state": "syn_sent", "answered": False}
HEARD = SPLICED | {"state": "mapped"}
NO_SYN_ACK = Attempt(f"{CLIENT}:40000", None, Failure.SILENCE, "no answer in time")
REFUSED = Attempt(f"{CLIENT}:40000", None, Failure.REFUSED, "connection refused")


def unread(its: Told, bridges: Told, made: Attempt = NO_SYN_ACK) -> Seen:
    """A SYN for a service with inspect = "none"."""
    service = {"name": "web", "dscp": 1, "inspect": "none", "backends": [BACKEND]}
    ways = [each | {"handoff": False} for each in bridges.after.get("ways", ())]
    return of(
        made,
        Told(its.at, its.before, {**its.after, "service": service}, trouble=its.trouble),
        Told(bridges.at, bridges.before, {**bridges.after, "ways": ways}, trouble=bridges.trouble),
        f"tcp://{VIP}:22",
    )


SYN_NOT_TAKEN = [
    (bridge(no_entry=1), "not with DSCP 1"),
    (bridge(host={"counters": {"Tcp.OutRsts": 3}}), "own TCP reset 3 packets"),
    (bridge(draining=1), "it took no SYN (draining +1)"),
    (bridge(bad_handoff_mac=1), "no SYN reached it"),
    (bridge(trouble="connection refused"), "no packetbridge runs there"),
    (bridge(UNHEARD), "does not answer, or its answers do not pass => on 203.0.113.20: nc -v"),
    (bridge(syns=1), "does not answer, or its answers do not pass"),
    (bridge(UNHEARD, {"no_route": {CLIENT: "unreachable"}}), f"no route to the client {CLIENT}"),
    (bridge(SPLICED), "lost on the way here"),
]


@pytest.mark.parametrize(("there", "said"), SYN_NOT_TAKEN)
def test_a_syn_that_was_not_answered(there: Told, said: str) -> None:
    """What others' handoffs have made the bridge count says nothing."""
    assert said.partition(" =>")[0] in only(unread(balancer(STEERED), there), FIRST)


def test_a_server_that_refuses_a_syn() -> None:
    there = bridge(SPLICED | {"state": "linger"})
    (way,) = there.after["ways"]
    way["refused"] = 1
    assert "refuses connections" in only(unread(balancer(STEERED), there, REFUSED), FIRST)


def test_nobody_who_takes_a_syn() -> None:
    assert "no backend could take" in only(
        unread(balancer(not_served=1), bridge(), REFUSED), BALANCER
    )
    over = unread(balancer(over_rate_limit=1), bridge(), REFUSED)
    assert "[pools.limit]" in only(over, BALANCER)
    assert "its rules are not in force" in only(unread(balancer(), bridge(), REFUSED), BALANCER)


def test_a_way_in_that_takes_handoffs() -> None:
    what = unread(balancer(STEERED), bridge(syn_at_bridge=1))
    (way,) = what.bridges[BRIDGE].after["ways"]
    way["handoff"] = True
    assert "right would be handoff = false" in only(what, FIRST)


def sent(its: Told, bridges: Told, failure: Failure | None, *others: str) -> Seen:
    """A datagram, and what came of it."""
    made = Exchanged((CLIENT, 40000), failure=failure, words="no answer", others=list(others))
    return of(Attempt(f"{CLIENT}:40000", datagram=made), its, bridges, f"udp://{VIP}:53")


DATAGRAMS = [
    (bridge(), "no datagram reached it"),
    (bridge(host={"counters": {"Udp.NoPorts": 1}}), "own UDP refused 1 packets"),
    (bridge(datagram_no_entry=1), "not with DSCP 1"),
    (bridge(zero_port=1), "it took no datagram (zero_port +1)"),
    (bridge(HEARD | {"answered": False}), "has the datagram, and has not answered"),
    (bridge(HEARD), "its answers, from 203.0.113.10, are lost on the way here"),
    (bridge(HEARD, {"no_route": {CLIENT: "unreachable"}}), f"no route to the client {CLIENT}"),
    (bridge(trouble="connection refused"), "no packetbridge runs there"),
]


@pytest.mark.parametrize(("there", "said"), DATAGRAMS, ids=[said for _, said in DATAGRAMS])
def test_a_datagram_without_an_answer(there: Told, said: str) -> None:
    assert said in only(sent(balancer(MAPPED), there, Failure.SILENCE), FIRST)


def test_a_datagram_that_is_refused() -> None:
    there = bridge(HEARD | {"answered": False})
    assert "refuses datagrams" in only(sent(balancer(MAPPED), there, Failure.REFUSED), FIRST)


def test_an_answer_that_has_not_passed_the_bridge() -> None:
    what = sent(balancer(MAPPED), bridge(HEARD), Failure.OTHER_SOURCE, "203.0.113.30:53")
    assert "came as from 203.0.113.30:53" in only(what, FIRST)


NOT_MAPPED = [
    (balancer(udp_no_backend=1), "no backend could take the client"),
    (balancer(udp_over_rate_limit=1), "[pools.limit]"),
    (balancer(fragment=1), "(fragment +1): it did not arrive"),
]


@pytest.mark.parametrize(("its", "said"), NOT_MAPPED, ids=[said for _, said in NOT_MAPPED])
def test_a_datagram_that_the_balancer_does_not_know(its: Told, said: str) -> None:
    assert said in only(sent(its, bridge(), Failure.SILENCE), BALANCER)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"SSH-2.0-x\r\n", "'SSH-2.0-x'"),
        (b"", "''"),
        (b"\x1b[2J", "1b 5b 32 4a"),
        (b"x" * 100, f"'{'x' * 72}'..."),
    ],
)
def test_what_a_server_says_cannot_spoil_a_terminal(data: bytes, said: str) -> None:
    assert steps.shown(data) == said


WRONG = [
    ("http://h", ("--send", "x")),
    ("udp://203.0.113.10:53", ()),
    ("udp://203.0.113.10:53", ("--send", "hex:0")),
    ("udp://203.0.113.10", ("--send", "x")),
    ("tcp://203.0.113.10:22/path", ()),
    ("tcp://203.0.113.10:0", ()),
    ("https://a..b/", ("--to", "203.0.113.10")),
    ("https://203.0.113.10/", ("--cacert", "/nowhere")),
    ("http://203.0.113.10/", ("--cacert", "/nowhere")),
    ("http://203.0.113.10/", ("--to", "203.0.113.10:x")),
]


@pytest.mark.parametrize(("url", "options"), WRONG)
def test_words_that_are_wrong(url: str, options: tuple[str, ...]) -> None:
    done = CliRunner().invoke(probe, [url, *options])
    assert done.exit_code == 2, done.output
    assert "right would be" in " ".join(done.output.split())


def test_where_words_lead_to() -> None:
    asked = wanted("https://a.example:444/x?y", "203.0.113.10", None, None, None, (), 1.0, None)
    assert (asked.service, asked.name, asked.host) == (
        "203.0.113.10:444",
        "a.example",
        "a.example:444",
    )
    assert (asked.path, asked.balancer, asked.protocol) == ("/x?y", "203.0.113.10:9310", "tcp")
    asked = wanted("udp://203.0.113.10:53", None, None, "hex:00 ff", None, (), 1.0, None)
    assert (asked.send, asked.protocol) == (b"\0\xff", "udp")


# --- this host ---


def test_signs_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    conf = tmp_path / "sys" / "net" / "ipv4" / "conf"
    for name, value in (("all", 0), ("default", 1), ("lo", 1), ("eth0", 1), ("eth1", 2)):
        (conf / name).mkdir(parents=True)
        (conf / name / "rp_filter").write_text(f"{value}\n")
    (conf.parent / "ip_forward").write_text("0\n")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "snmp").write_text(
        "Ip: Forwarding OutNoRoutes InAddrErrors\nIp: 1 7 8\nTcp: RtoMin OutRsts\nTcp: 200 9\n"
    )
    (tmp_path / "net" / "netstat").write_text("TcpExt: A IPReversePathFilter\nTcpExt: 1 5\n")
    signs = host_signs.read(["127.0.0.1", "255.255.255.255"], tmp_path)
    assert signs.counters == {
        "TcpExt.IPReversePathFilter": 5,
        "Ip.InAddrErrors": 8,
        "Ip.OutNoRoutes": 7,
        "Tcp.OutRsts": 9,
    }
    assert signs.strict == ("eth0",)
    assert not signs.forwards
    assert list(signs.no_route) == ["255.255.255.255"]


@contextmanager
def serving(*answers: bytes) -> Iterator[int]:
    """A server that gives these answers on one connection, and closes it."""

    def serve(listening: socket) -> None:
        with closing(listening.accept()[0]) as tcp:
            for answer in answers:
                tcp.recv(65536)
                tcp.sendall(answer)

    with create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
ANSWERS = [
    (b"", Failure.CLOSED, 0),
    (OK + b"a", Failure.CLOSED, 1),
    (b"what\r\n\r\n", Failure.NO_HTTP, 0),
]


def test_an_exchange_is_timed_step_by_step() -> None:
    with (
        serving(OK + b"ab", OK + b"cd") as port,
        closing(HttpConnection("127.0.0.1", port, 2)) as made,
    ):
        assert made.local[0] == "127.0.0.1"
        for _ in range(2):
            got = made.get("h", "/", 2)
            assert (got.status, got.size, got.failure, got.reusable) == (200, 2, None, True)
            assert got.acknowledged is not None
            assert got.first_byte is not None
            assert got.whole is not None
            assert got.acknowledged <= got.first_byte <= got.whole < 2


@pytest.mark.parametrize(("answer", "failure", "size"), ANSWERS)
def test_an_answer_that_is_none_or_not_whole(answer: bytes, failure: Failure, size: int) -> None:
    with serving(answer) as port, closing(HttpConnection("127.0.0.1", port, 2)) as made:
        got = made.get("h", "/", 2)
    assert (got.failure, got.size, got.whole) == (failure, size, None)


def test_an_answer_that_does_not_come() -> None:
    with (
        create_server(("127.0.0.1", 0)) as listening,
        closing(HttpConnection("127.0.0.1", listening.getsockname()[1], 2)) as made,
    ):
        got = made.get("h", "/", 0.1)
    assert (got.failure, got.first_byte) == (Failure.SILENCE, None)
    assert got.acknowledged is not None


def test_a_port_where_nobody_listens() -> None:
    with create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with closing(HttpConnection("127.0.0.1", port, 2)) as made:
        assert (made.handshake, made.failure) == (None, Failure.REFUSED)


GREETINGS = [
    (b"SSH-2.0-x\r\nmore", b"SSH-2.0-x\r", None),
    (b"no line", b"no line", Failure.CLOSED),
    (b"x" * 600, b"x" * 512, None),
    (b"", b"", Failure.CLOSED),
]


@pytest.mark.parametrize(("said", "heard", "failure"), GREETINGS)
def test_what_a_server_says_first(said: bytes, heard: bytes, failure: Failure | None) -> None:
    with greeting(said) as port, closing(GreetedConnection("127.0.0.1", port, 2)) as made:
        got = made.hear(2)
    assert (got.data, got.failure) == (heard, failure)
    assert (got.first_byte is None) == (not heard)


@contextmanager
def greeting(said: bytes) -> Iterator[int]:
    """A server that says this, and closes the connection."""

    def serve(listening: socket) -> None:
        with closing(listening.accept()[0]) as tcp:
            tcp.sendall(said)

    with create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


def test_a_server_that_says_nothing() -> None:
    with (
        create_server(("127.0.0.1", 0)) as listening,
        closing(GreetedConnection("127.0.0.1", listening.getsockname()[1], 2)) as made,
    ):
        assert made.hear(0.1).failure is Failure.SILENCE


@contextmanager
def datagrams() -> Iterator[tuple[socket, DatagramExchange]]:
    """A server's socket, and who asks it."""
    with socket(AF_INET, SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(2)
        with closing(DatagramExchange(*server.getsockname())) as asking:
            yield server, asking


def test_a_datagram_is_answered_by_who_was_asked() -> None:
    with datagrams() as (server, asking), datagrams() as (other, _):

        def serve() -> None:
            data, client = server.recvfrom(100)
            other.sendto(b"not I", client)
            server.sendto(data[::-1], client)

        thread = threading.Thread(target=serve)
        thread.start()
        made = asking.ask(b"abc", 2)
        thread.join(5)
        stranger = "{}:{}".format(*other.getsockname())
    assert (made.data, made.failure, made.others) == (b"cba", None, [stranger])


def test_a_datagram_that_only_another_answers() -> None:
    with datagrams() as (server, asking), datagrams() as (other, _):

        def serve() -> None:
            other.sendto(b"I", server.recvfrom(100)[1])

        thread = threading.Thread(target=serve)
        thread.start()
        made = asking.ask(b"", 0.3)
        thread.join(5)
    assert (made.answered, made.failure) == (None, Failure.OTHER_SOURCE)


def test_a_datagram_for_a_port_that_nobody_has() -> None:
    with datagrams() as (server, asking):
        server.close()
        made = asking.ask(b"x", 2)
    assert (made.failure, made.words) == (
        Failure.REFUSED,
        "connection refused (ICMP of 127.0.0.1)",
    )


def test_a_datagram_that_nobody_answers() -> None:
    with datagrams() as (_, asking):
        assert asking.ask(b"x", 0.1).failure is Failure.SILENCE
