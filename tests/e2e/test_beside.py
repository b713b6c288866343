"""What else the hosts do goes on beside the balancer: direct requests, ssh to its only address."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e import web
from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, SERVER1, SERVER2, VIP, Lab, until

pytestmark = pytest.mark.root

SSHD = "/usr/sbin/sshd"
HOSTS = {
    "balancer": [VIP],
    "backend1": [BRIDGE1, SERVER1],
    "backend2": [BRIDGE2, SERVER2],
}


@pytest.fixture(scope="module")
def ssh(running_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """sshd on the balancer and both backends; gives the ssh command for root by key."""
    if shutil.which(SSHD) is None or shutil.which("ssh") is None:
        pytest.skip("needs openssh-server and openssh-client: make packages")
    directory = tmp_path_factory.mktemp("ssh")
    host_key, user_key = directory / "host_key", directory / "user_key"
    for key in (host_key, user_key):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True, timeout=20)
    separation = Path("/run/sshd")  # sshd will not start without it, empty as it is
    made = not separation.exists()
    separation.mkdir(mode=0o755, exist_ok=True)
    servers = []
    try:
        for host, addresses in HOSTS.items():
            config = directory / f"sshd_{host}"
            config.write_text(_sshd_config(addresses, host_key, user_key))
            command = running_lab.command(host, SSHD, "-D", "-e", "-f", str(config))
            servers.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            for address in addresses:
                until(lambda to=address: _listens(running_lab, to), 10, f"sshd at {address}")
        yield [
            "ssh", "-F", "none", "-i", str(user_key), "-l", "root",
            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
            "-o", f"UserKnownHostsFile={directory}/known_hosts", "-o", "ConnectTimeout=5",
        ]  # fmt: skip
    finally:
        for server in servers:
            server.terminate()
            server.wait(timeout=10)
        if made:
            separation.rmdir()


@contextmanager
def downloads(lab: Lab) -> Iterator[None]:
    """20 MB through the VIP, again and again while something else happens, and each time right."""
    wanted = (LAB / "www" / "20m").read_bytes()
    over, outcomes = threading.Event(), []

    def repeat() -> None:
        while not over.is_set():
            try:
                outcomes.append(lab.curl("/20m").body == wanted)
            except AssertionError as error:
                outcomes.append(error)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert outcomes
    assert [outcome for outcome in outcomes if outcome is not True] == []


@pytest.mark.parametrize("address", [address for list_ in HOSTS.values() for address in list_])
@pytest.mark.parametrize("host", ["client", "client2"])
def test_ssh(lab: Lab, ssh: list[str], host: str, address: str) -> None:
    done = lab.result(host, *ssh, address, "echo it is; ip -o -4 address show eth0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("it is\n")
    assert f" {address}/24 " in done.stdout  # and it is this host


def test_large_transfer_by_ssh_beside_a_download(lab: Lab, ssh: list[str]) -> None:
    """20 MB to the balancer's only address, the VIP, and back."""
    content = (LAB / "www" / "20m").read_bytes()
    with downloads(lab):
        command = lab.command("client", *ssh, VIP, "cat")
        done = subprocess.run(command, input=content, capture_output=True, timeout=60, check=True)
    assert done.stdout == content


@pytest.mark.parametrize("service_class", ["ef", "af21", "cs1", "lowdelay", "throughput", "0x04"])
def test_ssh_with_a_service_class(lab: Lab, ssh: list[str], service_class: str) -> None:
    """ssh sets a DSCP itself; 0x04 is the one that names our VIP."""
    for address in (VIP, BRIDGE1, SERVER1):
        done = lab.result("client2", *ssh, "-o", f"IPQoS={service_class}", address, "echo it is")
        assert (done.stdout, done.stderr) == ("it is\n", done.stderr)


def test_every_dscp_to_other_ports(lab: Lab, ssh: list[str]) -> None:
    bridge, balancer = lab.growth("backend1"), lab.growth("balancer")
    with downloads(lab):
        for dscp in range(64):
            for address in (VIP, BRIDGE1, SERVER1):
                banner = lab.inside("client2", _banner, address, dscp)
                assert banner.startswith(b"SSH-2.0-"), (dscp, address)
        assert bridge("no_entry") == balancer("no_service") == 0


@pytest.mark.parametrize("host", ["client", "client2"])
def test_direct_requests_beside_a_download(lab: Lab, host: str) -> None:
    """Past the VIP, to the server itself: 200 connections, each with a DSCP of its own."""
    body = (LAB / "www" / "1k").read_bytes()
    with downloads(lab):
        for number in range(200):
            server, name = ((SERVER1, b"backend1"), (SERVER2, b"backend2"))[number % 2]
            port = 63_000 + number  # none of those that the kernel gives to connections to the VIP
            answer = lab.inside(host, _direct, server, port, number % 64)
            assert answer.endswith(body)
            assert b"X-Backend: " + name in answer


def test_direct_download_beside_a_download(lab: Lab) -> None:
    body = (LAB / "www" / "20m").read_bytes()
    with downloads(lab):
        answers = [lab.curl("/20m", host="client2", to=to) for to in (SERVER1, SERVER2)]
    assert all(answer.body == body for answer in answers)


def test_direct_packets_do_not_reach_the_bridge(lab: Lab) -> None:
    """They are not even looked at: the bridge's queue gets no packet of theirs."""
    before = lab.run("backend1", "cat", "/proc/net/netfilter/nfnetlink_queue").split()
    assert lab.curl("/1m", host="client2", to=SERVER1).status == 200
    after = lab.run("backend1", "cat", "/proc/net/netfilter/nfnetlink_queue").split()
    assert after[7] == before[7]  # the sequence number of the last packet queued


def _sshd_config(addresses: list[str], host_key: Path, user_key: Path) -> str:
    return "\n".join(
        [
            *(f"ListenAddress {address}:22" for address in addresses),
            f"HostKey {host_key}",
            f"AuthorizedKeysFile {user_key}.pub",
            "UsePAM no",
            "StrictModes no",  # the temporary directory is root's alone
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "PidFile none",
            "MaxStartups 100",
            "",
        ]
    )


def _listens(lab: Lab, address: str) -> bool:
    try:
        return lab.inside("client2", _banner, address, 0).startswith(b"SSH-")
    except ConnectionRefusedError:
        return False


def _banner(address: str, dscp: int) -> bytes:
    with socket.socket() as tcp:
        tcp.settimeout(5)
        tcp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        tcp.connect((address, 22))
        return tcp.recv(100)


def _direct(server: str, port: int, dscp: int) -> bytes:
    with socket.socket() as tcp:
        tcp.settimeout(5)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
        tcp.bind(("", port))
        tcp.connect((server, 80))
        tcp.sendall(web.request("/1k", close=True))
        return web.rest(tcp)
