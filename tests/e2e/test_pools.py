"""Policies, drains, weights and membership in the running programs, on real connections: what is in
progress is counted, and the count falls to nothing however connections end."""

from __future__ import annotations

import selectors
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e import web
from tests.e2e.controlled import client
from tests.e2e.lab import BRIDGE2, VIP, Lab, until
from tests.e2e.load import download
from tests.e2e.pooled import (
    FIRST,
    held,
    in_force,
    pending,
    pool,
    quiet,
    reset,
    rows,
    service,
)

pytestmark = pytest.mark.root

AT_ONCE = 8  # connections in progress at all times, while responses take unequally long
SLOW = 60_000  # bytes that a slow server gives a connection at once, and in each second
SWEEPS = 25


@contextmanager
def on_path(lab: Lab, datapath: str) -> Iterator[Lab]:
    """The lab with its connections on that path."""
    if datapath == lab.datapath:
        yield lab
        return

    def changed(text: str) -> str:
        return text.replace(f'"{lab.datapath}"', f'"{datapath}"')

    with lab.configured(balancer=changed, backend1=changed, backend2=changed):
        yield lab


def slow(text: str) -> str:
    return text.replace("sendfile on;", f"sendfile on;\n    limit_rate {SLOW};")


@pytest.fixture(scope="module", params=["nfqueue", "ebpf"])
def either(running_lab: Lab, request: pytest.FixtureRequest) -> Iterator[str]:
    """Either data path, with a second server that answers slowly, and a pool by pending flows."""
    times = "\n[timeouts]\nidle = 1.0\n"
    text = service() + pool(more='policy = "least-pending"') + times
    with (
        on_path(running_lab, request.param),
        running_lab.configured(nginx_backend2=slow),
        in_force(running_lab, text),
    ):
        yield str(request.param)


@pytest.mark.usefixtures("either")
def test_pending_counts_stay_together_while_responses_take_unequally_long(lab: Lab) -> None:
    """A new connection for each that is over. From even counts, whatever closes and is made up for
    leaves them even; so they are never further apart than there are connections missing."""
    quiet(lab)
    apart: Counter[int] = Counter()
    with client(lab) as asking, Crowd(lab, "/100k") as crowd:

        def counts() -> list[int]:
            return [row["pending"] for row in asking.all("backends")]

        before = {row["name"]: row["given"] for row in asking.all("backends")}
        for _ in range(SWEEPS):
            crowd.grows(AT_ONCE)
            until(lambda: sum(counts()) == len(crowd), 5, "all of them are counted")
            one, two = counts()
            apart[abs(one - two)] += 1
            assert abs(one - two) <= max(1, AT_ONCE - one - two), (one, two)
            crowd.shrinks()
            until(lambda: sum(counts()) == len(crowd), 5, "what is over is not counted")
        given = {row["name"]: row["given"] - before[row["name"]] for row in asking.all("backends")}
    quiet(lab)
    assert apart[0] + apart[1] >= SWEEPS // 2
    assert given["backend1"] > 1.5 * given["backend2"], "the slow one got less"


class Crowd:
    """Connections of the client's, each with one request, and closed by the server."""

    def __init__(self, lab: Lab, path: str) -> None:
        self._lab = lab
        self._ask = web.request(path, close=True)
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        while len(self):
            self.shrinks()
        self._selector.close()

    def __len__(self) -> int:
        return len(self._selector.get_map())

    def grows(self, count: int) -> None:
        """To so many."""
        while len(self) < count:
            tcp = self._lab.connect()
            tcp.sendall(self._ask)
            self._selector.register(tcp, selectors.EVENT_READ)

    def shrinks(self) -> None:
        """Read what comes until one is over, at least."""
        before = len(self)
        while len(self) == before:
            for key, _ in self._selector.select(10):
                tcp = key.fileobj
                assert isinstance(tcp, socket.socket)
                if not tcp.recv(1 << 17):
                    self._selector.unregister(tcp)
                    tcp.close()


@pytest.mark.parametrize("end", ["client", "server", "reset", "reset within", "silence"])
def test_a_place_is_free_when_its_connection_is_over(lab: Lab, either: str, end: str) -> None:
    quiet(lab)
    path = "/20m" if end == "reset within" else "/1k"
    with ExitStack() as closing:
        flows = []
        for _ in range(6):
            tcp = closing.enter_context(lab.connect())
            tcp.sendall(web.request(path))
            assert tcp.recv(1000)
            flows.append(tcp)
        assert pending(lab) == {"backend1": 3, "backend2": 3}
        with client(lab) as asking:
            ways = {flow["path"] for flow in asking.all("flows", state="handed")}
        assert ways == {"kernel" if either == "ebpf" else "python"}
        for tcp in flows:
            if end == "client":
                tcp.close()
            elif end == "server":
                tcp.sendall(web.request("/1k", close=True))
                assert web.rest(tcp)
                tcp.close()
            elif end.startswith("reset"):
                reset(tcp)
        before = time.monotonic()
        quiet(lab, seconds=6)
        if end == "silence":
            assert time.monotonic() - before > 0.5, "they had their time"
    assert lab.curl("/1k").status == 200


POLICIES = ["maglev", "ring", "rendezvous", "round-robin", "least-pending", "source"]


def test_every_policy_gives_each_backend_its_share(lab: Lab) -> None:
    """Twelve connections, of a weight of 3 to 1, each by the rule of its policy."""
    weights = f'{FIRST.replace(" }", ", weight = 3 }")}, {{ name = "b2", bridge = "{BRIDGE2}" }}'
    pools = [pool(name, weights, f'policy = "{name}"') for name in POLICIES]
    routes = [
        f'\n[[routes]]\nheader = {{ X-Pool = "{name}" }}\npool = "{name}"\n' for name in POLICIES
    ]
    bounded = pool("bounded", more="bounded_load = 1.25")
    with in_force(lab, service("bounded") + "".join(routes + pools) + bounded):
        for name in POLICIES:
            found = Counter()
            with ExitStack() as closing:
                for n in range(12):
                    tcp = closing.enter_context(lab.connect())
                    tcp.sendall(web.request(f"/small/{n + 1}", f"X-Pool: {name}"))
                    found[web.response(tcp).backend] += 1
                assert sorted(pending(lab, name).values()) == sorted(
                    [found["backend1"], found["backend2"]]
                )
            if name in ("round-robin", "least-pending"):
                assert found == {"backend1": 9, "backend2": 3}
            elif name == "source":
                assert len(found) == 1, "it is one client"
            else:
                assert found["backend1"] > found["backend2"] > 0
            quiet(lab, name)
        with held(lab, 10):  # all of one path
            assert sorted(pending(lab, "bounded").values()) == [3, 7], "ceil(1.25 * 10 / 2)"


class Curls:
    """curl that fetches one file after the other, each by a connection of its own, until it is
    stopped; ``said`` is what became of each."""

    def __init__(self, lab: Lab, path: str = "/small/[1-64]?[1-99999]") -> None:
        words = ["curl", "-sS", "-H", "Connection: close", "-o", "/dev/null", "-m", "10"]
        form = "%{http_code} %header{x-backend} %{errormsg}\\n"
        self._curl = subprocess.Popen(
            lab.command("client", *words, "-w", form, f"http://{VIP}{path}"),
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.said: list[list[str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def goes_on(self, count: int = 30) -> set[str]:
        """Wait for so many more; gives who answered them."""
        before = len(self.said)
        until(lambda: len(self.said) >= before + count, 20, "curl goes on")
        assert all(line[0] == "200" for line in self.said), self.said[-3:]
        return {line[1] for line in self.said[before:]}

    def close(self) -> None:
        self._curl.kill()
        self._curl.wait()
        self._reader.join(5)

    def _read(self) -> None:
        assert self._curl.stdout is not None
        for line in self._curl.stdout:
            if line.endswith("\n"):
                self.said.append(line.split())


@contextmanager
def curls(lab: Lab) -> Iterator[Curls]:
    running = Curls(lab)
    try:
        yield running
    finally:
        running.close()


BOTH_NAMES = {"backend1", "backend2"}


def test_backends_come_and_go_while_curl_goes_on(lab: Lab) -> None:
    """Drained, of no weight, removed, added, by command: no request fails, and who is not to have
    any has none once the command has said so."""
    by_uri = 'key = "uri"'  # the paths are the same for long
    with in_force(lab, service("coming") + pool("coming", more=by_uri)), curls(lab) as running:
        assert running.goes_on(30) == BOTH_NAMES
        for off, on in (
            (("drain", "backend1", {}), ("ready", {})),
            (("weight", "backend1", {"weight": 0}), ("weight", {"weight": 1})),
            (("remove", "backend2", {}), ("add", {"bridge": BRIDGE2})),
        ):
            command, name, arguments = off
            change(lab, command, f"coming/{name}", **arguments)
            running.goes_on(2)  # one was on its way
            assert running.goes_on(15) == BOTH_NAMES - {name}
            change(lab, on[0], f"coming/{name}", **on[1])
            running.goes_on(2)
            assert running.goes_on(30) == BOTH_NAMES


def change(lab: Lab, command: str, backend: str, **arguments: object) -> None:
    with client(lab) as asking:
        assert asking.ask(command, backend=backend, **arguments)


@pytest.mark.parametrize("how", ["drain", "remove", "weight"])
def test_what_is_in_progress_goes_on_and_its_count_falls_to_nothing(lab: Lab, how: str) -> None:
    with in_force(lab, service(how) + pool(how)):
        path = lab.path_for("20m", "backend1")
        quiet(lab, how)
        with download(lab, path, "12M") as running:
            running.goes_on(100_000)
            assert pending(lab, how) == {"backend1": 1, "backend2": 0}
            change(lab, how, f"{how}/backend1", **({"weight": 0} if how == "weight" else {}))
            assert lab.curl(path, "-I").backend == "backend2"
            assert pending(lab, how)["backend1"] == 1
            running.arrives(20)
        until(lambda: not pending(lab, how).get("backend1"), 5, "its count falls to 0")
        names = {row["name"] for row in rows(lab, how)}
        assert ("backend1" in names) == (how != "remove")


def test_who_comes_back_starts_slowly(lab: Lab) -> None:
    """By turns, while its share grows: at first it is much smaller than the other's."""
    more = 'policy = "round-robin"\nslow_start = 60.0'
    with in_force(lab, service("slow") + pool("slow", more=more)):
        change(lab, "drain", "slow/backend2")
        change(lab, "ready", "slow/backend2")
        found = Counter(lab.curl("/1k").backend for _ in range(20))
        assert found["backend1"] >= 17
        states = {row["name"]: row["state"] for row in rows(lab, "slow")}
        assert states == {"backend1": "up", "backend2": "starting"}
