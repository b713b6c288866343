"""The kernel's path and a host's links: those it is not on, and all of them while it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.e2e import web
from tests.e2e.conftest import brought_up
from tests.e2e.lab import BRIDGE1, LAB, NAME, VIP, Lab, until
from tests.soak import Amount

pytestmark = pytest.mark.root

GUESTS = "10.77.0.0/24"
UPLINK = ("link", "add", "uplink", "type", "veth", "peer", "name", "guests", "netns")


@pytest.fixture(scope="module")
def kernel_lab() -> Iterator[Lab]:
    with brought_up(Lab("ebpf", f"{NAME}-links", LAB / "links")) as lab:
        yield lab


@pytest.fixture
def guest(kernel_lab: Lab) -> Iterator[str]:
    """A client behind the first bridge's host, on a link that came after the bridge had started."""
    lab, host = kernel_lab, f"{NAME}-links-guest"
    subprocess.run(["ip", "netns", "add", host], check=True)
    inside = ["nsenter", f"--net=/run/netns/{host}", "--"]
    try:
        pid = str(lab.pid("backend1"))
        subprocess.run([*inside, "ip", *UPLINK, f"/proc/{pid}/ns/net"], check=True)
        lab.run("backend1", "ip", "address", "add", "10.77.0.1/24", "dev", "guests")
        lab.run("backend1", "ip", "link", "set", "guests", "up")
        for words in (
            "address add 10.77.0.2/24 dev uplink",
            "link set uplink up",
            "route add default via 10.77.0.1",
        ):
            subprocess.run([*inside, "ip", *words.split()], check=True)
        lab.run("balancer", "ip", "route", "add", GUESTS, "via", BRIDGE1)
        with lab.sysctl("backend1", net_ipv4_ip_forward=1):
            yield " ".join(inside)
        lab.run("balancer", "ip", "route", "delete", GUESTS)
    finally:
        subprocess.run(["ip", "netns", "delete", host], check=True)


def test_a_client_on_a_link_that_the_kernels_path_is_not_on(kernel_lab: Lab, guest: str) -> None:
    path = kernel_lab.path_for("1m", "backend1")
    whole = (kernel_lab.directory / "www" / "1m").read_bytes()
    curl = [*guest.split(), "curl", "-sS", "--noproxy", "*", "--max-time", "15"]
    url = f"http://{VIP}{path}"
    done = subprocess.run([*curl, url, url], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == 2 * whole


@pytest.mark.parametrize("program", ["balancer", "backend1"])
def test_a_program_starts_again_in_a_download_at_full_speed(
    kernel_lab: Lab, program: str, amount: Amount, report: Callable[[str], None]
) -> None:
    """A packet that the kernel let by untranslated in between would end the connection."""
    path = kernel_lab.path_for("100m", "backend1")
    starts = amount(3, 20)
    over = threading.Event()

    def starting() -> None:
        try:
            for _ in range(starts):
                os.kill(kernel_lab.pid(program), signal.SIGKILL)
                until(lambda: not kernel_lab.alive(program), 5, "it ends")
                kernel_lab.script("start", program)
        finally:
            over.set()

    restarting = threading.Thread(target=starting)
    with kernel_lab.connect() as tcp:
        tcp.sendall(web.request(path))
        assert len(web.response(tcp).body) == 100 << 20
        restarting.start()
        downloads = 0
        while not over.is_set():
            tcp.sendall(web.request(path))
            assert len(web.response(tcp).body) == 100 << 20
            downloads += 1
    restarting.join()
    report(f"{program}: {starts} starts in {downloads} downloads")
