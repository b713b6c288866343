"""A bridge in source mode `bridge`: a server on another host sees the bridge's address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e import web
from tests.e2e.capture import capture
from tests.e2e.lab import BRIDGE1, CLIENT, LAB, SERVER1, SERVER2, VIP, Lab

pytestmark = pytest.mark.root

FIRST_PORT, LAST_PORT = 20000, 29999  # the default range of the bridge's own ports


@pytest.fixture(scope="module")
def paths(running_lab: Lab) -> dict[str, str]:
    """By file: a path that leads to the bridge at .20, as it was when its server was local."""
    names = ("1k", "20m", "upload/remote")
    return {name: running_lab.path_for(name, "backend1") for name in names}


@pytest.fixture(scope="module", autouse=True)
def remote(running_lab: Lab, paths: dict[str, str]) -> Iterator[None]:
    """The bridge at .20 has nginx on the other backend host."""

    def change(text: str) -> str:
        elsewhere = text.replace(f'"{SERVER1}:80"', f'"{SERVER2}:80"')
        return elsewhere.replace('source = "client"', 'source = "bridge"')

    with running_lab.configured(backend1=change):
        yield


def test_remote_server(lab: Lab, paths: dict[str, str]) -> None:
    """The server sees the bridge with a port of its range, the client only the VIP."""
    with (
        capture(lab, "backend2") as at_server,
        capture(lab, "client") as at_client,
        lab.connect() as tcp,
    ):
        tcp.sendall(web.request(paths["1k"], close=True))
        answer = web.rest(tcp)
        port = tcp.getsockname()[1]
    assert answer.endswith((LAB / "www" / "1k").read_bytes())
    assert b"X-Backend: backend2" in answer
    # not what an earlier test's connection still has for the bridge on that host
    received = [packet for packet in at_server.packets if packet.way[1] == SERVER2]
    assert {packet.way for packet in received} == {(BRIDGE1, SERVER2)}
    assert all(FIRST_PORT <= packet.ports[0] <= LAST_PORT for packet in received)
    assert {packet.way for packet in at_client.packets if port in packet.ports} == {
        (CLIENT, VIP),
        (VIP, CLIENT),
    }


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"net_ipv4_tcp_timestamps": 0},
        {"net_ipv4_tcp_timestamps": 0, "net_ipv4_tcp_sack": 0, "net_ipv4_tcp_window_scaling": 0},
    ],
    ids=["all options", "no timestamps", "no options"],
)
def test_remote_download_and_upload(
    lab: Lab, paths: dict[str, str], settings: dict[str, int]
) -> None:
    uploaded, source = LAB / "www" / "upload" / "remote", LAB / "www" / "20m"
    with lab.sysctl("client", **settings):
        answer = lab.curl(paths["20m"])
        assert answer.body == source.read_bytes()
        assert answer.backend == "backend2"
        try:
            sent = lab.curl(paths["upload/remote"], "-T", str(source))
            assert sent.status in (201, 204)
            assert uploaded.read_bytes() == source.read_bytes()
        finally:
            uploaded.unlink(missing_ok=True)


def test_remote_many_connections(lab: Lab, paths: dict[str, str]) -> None:
    body = (LAB / "www" / "1k").read_bytes()
    before = lab.silences()
    tally = web.at_once(lab, 1000, 32, paths["1k"], body)
    assert tally.failures == []
    assert tally.slowest < 0.18 or lab.silences() == before


def test_remote_client_with_a_port_of_the_range(lab: Lab, paths: dict[str, str]) -> None:
    """A client may well have a port that the bridge uses for its own connections."""
    body = (LAB / "www" / "1k").read_bytes()
    for port in range(FIRST_PORT, FIRST_PORT + 20):
        with lab.connect(port=port) as tcp:
            tcp.sendall(web.request(paths["1k"], close=True))
            assert web.rest(tcp).endswith(body)
