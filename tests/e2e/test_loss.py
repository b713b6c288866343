"""Loss on every leg: nothing wrong, nothing hanging, and handoffs among what was lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import web
from tests.e2e.lab import LAB, Lab
from tests.e2e.network import LEGS, loss

pytestmark = pytest.mark.root

REQUESTS = 200


@pytest.fixture
def upload() -> Iterator[Path]:
    """Where /upload/lossy ends up on the servers; removed afterwards."""
    file = LAB / "www" / "upload" / "lossy"
    file.unlink(missing_ok=True)
    yield file
    file.unlink(missing_ok=True)


@pytest.mark.parametrize("probability", [0.01, 0.05])
def test_short_requests_under_loss(lab: Lab, probability: float) -> None:
    body = (LAB / "www" / "1k").read_bytes()
    with loss(lab, probability, *LEGS) as lossy:
        tally = web.at_once(lab, REQUESTS, 16, "/1k", body)
        dropped = lossy.dropped()
    assert tally.failures == []
    assert len(tally.seconds) == REQUESTS
    assert all(dropped.packets.values()), dropped
    assert probability < 0.05 or dropped.handoffs, dropped


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("probability", [0.01, 0.05])
def test_download_under_loss(lab: Lab, leg: str, probability: float) -> None:
    with loss(lab, probability, leg) as lossy:
        answer = lab.curl("/20m", timeout=60)
        dropped = lossy.dropped()
    assert answer.status == 200
    assert hashlib.sha256(answer.body).digest() == _digest(LAB / "www" / "20m")
    assert dropped.packets[leg] > 20 * probability


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("probability", [0.01, 0.05])
def test_upload_under_loss(lab: Lab, upload: Path, leg: str, probability: float) -> None:
    source = LAB / "www" / "20m"
    with loss(lab, probability, leg) as lossy:
        answer = lab.curl("/upload/lossy", "-T", str(source), timeout=60)
        dropped = lossy.dropped()
    assert answer.status == 201
    assert _digest(upload) == _digest(source)
    assert dropped.packets[leg] > 20 * probability


def _digest(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()
