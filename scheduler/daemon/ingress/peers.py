"""From which client a request comes, as the key of its shares: an address, or what a trusted proxy says of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

FORWARDED_HEADER = "X-Forwarded-For"
LOCAL = "local"
"""The key of clients without an address, those of a Unix socket."""
_IPV6_PREFIX = 64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Peers:
    """Names clients; knows the proxies whose word is taken."""

    def __init__(self) -> None:
        """Trusts no proxy."""
        self._proxies: tuple[Network, ...] = ()

    def trust(self, proxies: Iterable[str]) -> None:
        """Takes over the addresses and networks of proxies, which are valid."""
        self._proxies = tuple(ipaddress.ip_network(each) for each in proxies)

    def is_proxy(self, address: str) -> bool:
        """Returns whether the word of that address is taken."""
        found = _address(address) if self._proxies else None
        return found is not None and any(found in network for network in self._proxies)

    def key(self, address: str, forwarded: Sequence[str] = ()) -> str:
        """Returns the key of a client.

        Args:
            address: of the other end of its connection; empty: it has none.
            forwarded: the values of X-Forwarded-For, in order; only those are believed that proxies have added.

        >>> peers = Peers()
        >>> peers.trust(["10.0.0.0/8"])
        >>> peers.key("10.0.0.1", ["198.51.100.7, 203.0.113.9", "10.0.0.2"]), peers.key("::ffff:192.0.2.1")
        ('203.0.113.9', '192.0.2.1')
        """
        if self._proxies and self.is_proxy(address):
            hops = [hop.strip() for value in forwarded for hop in value.split(",")]
            # The last hop was added by the proxy itself. One that is no proxy is the client, whatever stands before it.
            while hops and _address(hops[-1]) is not None:
                address = hops.pop()
                if not self.is_proxy(address):
                    break
        return _key(address)


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


@lru_cache(maxsize=4096)
def _key(text: str) -> str:
    found = _address(text)
    if found is None:
        return text or LOCAL
    if found.version == 4:
        return str(found)
    # One host has a whole network of so many bits to choose its addresses from.
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
