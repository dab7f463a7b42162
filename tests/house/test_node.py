"""What the process node gives its pods."""

from __future__ import annotations

from harness.node import Addresses


def test_two_nodes_at_once_share_no_address() -> None:
    first, second = Addresses(), Addresses()
    try:
        ours, theirs = ({next(one) for _ in range(1000)} for one in (first, second))
        assert len(ours) == len(theirs) == 1000
        assert not ours & theirs
        third = Addresses()
        assert next(third) not in ours | theirs
        third.close()
    finally:
        first.close()
        second.close()


def test_addresses_start_again_when_all_were_used() -> None:
    addresses = Addresses()
    first = next(addresses)
    given = [next(addresses) for _ in range(250 * 250)]
    addresses.close()
    assert given[-1] == first
