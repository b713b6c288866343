"""Derived keys: one for each purpose, as BLAKE2b gives them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.keys import derive
from tests.unit import models


@given(st.binary(min_size=16, max_size=64))
def test_each_purpose_has_its_key(shared: bytes) -> None:
    keys = derive(shared)
    assert keys.cookie == models.derived_key(shared, "cookie")
    assert keys.handoff == models.derived_key(shared, "handoff")
    assert keys.answer == models.derived_key(shared, "answer")
    assert len({keys.cookie, keys.handoff, keys.answer}) == 3
    assert {len(key) for key in (keys.cookie, keys.handoff, keys.answer)} == {16}


def test_literal_keys() -> None:
    """From OpenSSL: `openssl mac -macopt hexkey:000102…1f -macopt size:16 -macopt
    custom:l3dsr-cookie -in /dev/null BLAKE2BMAC`, and likewise the others."""
    keys = derive(bytes(range(32)))
    assert keys.cookie.hex() == "9b4ac1157ae30855444021233bfb10f4"
    assert keys.handoff.hex() == "8af62b74d6a3cf0ff1ac7158cc09b8ea"
    assert keys.answer.hex() == "162f7285039bf569284342e9115abc03"


def test_a_key_too_long_for_the_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        derive(bytes(65))
