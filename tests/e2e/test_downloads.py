"""Large responses and uploads: every byte right, and hardly any of a response at the balancer."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import BRIDGE1, BRIDGE2, LAB, VIP, Lab

pytestmark = pytest.mark.root

MIB = 1 << 20
HUNDRED_MB = 100 * MIB


@pytest.fixture
def gibibyte() -> Iterator[str]:
    """SHA-256 of /1g, a file of 1 GiB in which no two blocks are alike; removed afterwards."""
    file, digest = LAB / "www" / "1g", hashlib.sha256()
    block = (LAB / "www" / "1m").read_bytes()
    try:
        with file.open("wb") as output:
            for number in range(1024):
                data = number.to_bytes(8, "big") + block[8:]
                output.write(data)
                digest.update(data)
        yield digest.hexdigest()
    finally:
        file.unlink(missing_ok=True)


@pytest.fixture
def upload() -> Iterator[Path]:
    """Where /upload/large ends up on the servers; removed afterwards."""
    file = LAB / "www" / "upload" / "large"
    file.unlink(missing_ok=True)
    yield file
    file.unlink(missing_ok=True)


def test_gibibyte_byte_for_byte(lab: Lab, gibibyte: str) -> None:
    curl = lab.command("client", "curl", "-sS", "--fail", "--max-time", "150", f"http://{VIP}/1g")
    with subprocess.Popen(curl, stdout=subprocess.PIPE) as download:
        received = hashlib.file_digest(download.stdout, "sha256").hexdigest()
    assert download.returncode == 0
    assert received == gibibyte


def test_response_does_not_pass_the_balancer(lab: Lab) -> None:
    received_before, sent_before = lab.bytes_at("balancer")
    bridges_before = sum(lab.bytes_at(host)[1] for host in ("backend1", "backend2"))
    answer = lab.curl("/100m", "-o", "/dev/null", timeout=120)
    received, sent = lab.bytes_at("balancer")
    bridges = sum(lab.bytes_at(host)[1] for host in ("backend1", "backend2"))
    assert answer.status == 200
    assert bridges - bridges_before > HUNDRED_MB, "the response went some other way"
    assert 0 < received - received_before < HUNDRED_MB / 100
    assert 0 < sent - sent_before < HUNDRED_MB / 100


def test_upload_of_200_mb(lab: Lab, upload: Path, tmp_path: Path) -> None:
    source, block = tmp_path / "large", (LAB / "www" / "1m").read_bytes()
    with source.open("wb") as output:
        for number in range(200):
            output.write(number.to_bytes(8, "big") + block[8:])
    answer = lab.curl("/upload/large", "-T", str(source), timeout=120)
    assert answer.status == 201
    assert _digest(upload) == _digest(source)


def test_twenty_downloads_at_once(lab: Lab) -> None:
    """Both backends, one balancer, and no mixing of the connections' bytes."""
    files = [f"/small/{number}" for number in range(1, 11)] + ["/1m"] * 10
    commands = [
        lab.command("client", "curl", "-sS", "--fail", "--max-time", "60", f"http://{VIP}{file}")
        for file in files
    ]
    downloads = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    bodies = [download.communicate(timeout=70)[0] for download in downloads]
    assert [download.returncode for download in downloads] == [0] * 20
    for file, body in zip(files, bodies, strict=True):
        assert body == (LAB / "www" / file[1:]).read_bytes(), file


def test_bridges_hold_no_vip(lab: Lab) -> None:
    """Direct return here needs no VIP on the servers, unlike other L3-DSR."""
    for host, bridge in (("backend1", BRIDGE1), ("backend2", BRIDGE2)):
        addresses = lab.run(host, "ip", "-o", "address")
        assert VIP not in addresses
        assert bridge in addresses


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
