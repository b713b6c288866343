"""A connection's name in logs."""

from __future__ import annotations

from common.core.flow_id import flow_id
from tests.unit import models


def test_a_literal_id() -> None:
    """By the model of SipHash."""
    key = models.flow_bytes(("198.51.100.7", 40000), ("192.0.2.10", 80))
    incarnation = key + bytes(range(8))
    assert flow_id(incarnation) == f"{models.siphash(b'l3dsr.flow.id...', incarnation):016x}"
    assert len(flow_id(incarnation)) == 16


def test_another_connection_has_another_id() -> None:
    assert flow_id(bytes(20)) != flow_id(bytes(19) + b"\1")
