"""Hashes name contents, whatever they lie in."""

from __future__ import annotations

from harness.hashing import canonical_sha256


def test_the_hash_of_plain_data_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_sha256({"a": 1, "b": [2]}) == canonical_sha256({"b": [2], "a": 1})
