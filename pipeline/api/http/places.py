"""How many requests are answered at a time: by all clients together, and by one of them."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_IPV6_NETWORK_BITS = 64
"""What one household or host is given: it has all addresses below, and may use each."""


class Places:
    """Places for requests; whoever gets none is refused and not kept waiting."""

    def __init__(self, total: int, for_one_client: int) -> None:
        """Prepare.

        Args:
            total: Most requests at a time.
            for_one_client: Most of them from one address.
        """
        self._total = total
        self._for_one_client = for_one_client
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken_by(self, address: str) -> Iterator[bool]:
        """Give whether there was a place for a client at `address`; it is given back at the end."""
        client = _client_of(address)
        if self._taken.total() >= self._total or self._taken[client] >= self._for_one_client:
            yield False
            return
        self._taken[client] += 1
        try:
            yield True
        finally:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]


def _client_of(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), _IPV6_NETWORK_BITS), strict=False))
