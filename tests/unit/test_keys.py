"""Derived keys: one for each purpose, as BLAKE2b gives them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.keys import Keyring, derive
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
    custom:l3dsr-cookie -in /dev/null BLAKE2BMAC`, and likewise the others (the name of size 4)."""
    keys = derive(bytes(range(32)))
    assert keys.cookie.hex() == "9b4ac1157ae30855444021233bfb10f4"
    assert keys.handoff.hex() == "8af62b74d6a3cf0ff1ac7158cc09b8ea"
    assert keys.name == "9342ae83"
    assert keys.answer.hex() == "162f7285039bf569284342e9115abc03"


def test_a_key_too_long_for_the_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        derive(bytes(65))


# --- which are in force ---

OLD, NEW, NEWEST, OTHER = (derive(bytes([number] * 32)) for number in range(4))


def test_the_first_signs_and_all_are_accepted() -> None:
    ring = Keyring([OLD, NEW])
    assert ring.signing is OLD
    assert ring.accepted == (OLD, NEW)
    assert str(ring) == f"{OLD.name} signs, {NEW.name} is accepted too"


def test_the_key_before_is_accepted_for_five_minutes_more() -> None:
    ring = Keyring([OLD])
    ring.replace([NEW], now=1000.0)
    assert ring.signing is NEW
    assert ring.accepted == (NEW, OLD)
    assert str(ring) == f"{NEW.name} signs, {OLD.name} for 300 s more"
    ring.expire(1299.9)
    assert ring.accepted == (NEW, OLD)
    ring.expire(1300.0)
    assert ring.accepted == (NEW,)


def test_the_same_file_again_prolongs_nothing() -> None:
    ring = Keyring([OLD])
    ring.replace([NEW], now=1000.0)
    ring.replace([NEW], now=1200.0)
    assert ring.accepted == (NEW, OLD)
    ring.expire(1300.0)
    assert ring.accepted == (NEW,)


def test_a_key_that_comes_back_is_in_force_for_good() -> None:
    ring = Keyring([OLD])
    ring.replace([NEW], now=1000.0)
    ring.replace([OLD], now=1001.0)
    assert ring.signing is OLD
    assert ring.accepted == (OLD, NEW)
    ring.expire(1301.0)
    assert ring.accepted == (OLD,)


def test_lines_that_change_places_retire_nothing() -> None:
    ring = Keyring([OLD, NEW])
    ring.replace([NEW, OLD], now=1000.0)
    assert (ring.signing, ring.accepted) == (NEW, (NEW, OLD))
    ring.expire(10_000.0)
    assert ring.accepted == (NEW, OLD)


def test_many_changes_leave_few_keys() -> None:
    """A forger's chance, and what a forgery costs, are by the number of keys."""
    ring = Keyring([OLD])
    for number in range(50):
        ring.replace([derive(bytes([100 + number] * 32)), OTHER], now=1000.0 + number)
    assert len(ring.accepted) == 4
    assert ring.accepted[2:] == tuple(derive(bytes([number] * 32)) for number in (147, 148))
