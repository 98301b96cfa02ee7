"""Names that a listener accepts in Host, and the origins of pages that it accepts.

A page of any site can make a browser connect to this machine: by a name of its own that leads
here (DNS rebinding), or by sending a request across sites. Host and Origin reveal it.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]\\]+)(?::(?P<port>[0-9]{0,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^\s/?#@\\,*]+)")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def split_host(text: str) -> tuple[str, str] | None:
    """Return name and port of a Host header (RFC 9110, 7.2), or None where it is none.

    The name is in lower case, without the dot that ends a full name and the brackets of an IPv6
    address; the port is empty where it is not given.
    """
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    name = found["name"].lower().removesuffix(".")
    if name.startswith("["):
        try:
            name = str(ipaddress.IPv6Address(name[1:-1]))
        except ValueError:
            return None
    return (name, found["port"] or "") if name else None


def is_loopback(name: str) -> bool:
    """Return whether only this machine can reach a server at `name`."""
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _name_of(bound: str) -> str:
    try:
        return str(ipaddress.ip_address(bound))
    except ValueError:
        return bound.lower()


@dataclass(frozen=True, slots=True)
class KnownHosts:
    """Names under which a listener answers.

    Attributes:
        names: Those beside the names of loopback; None for any name.
    """

    names: frozenset[str] | None

    @classmethod
    def of(cls, bound: str, allowed: Iterable[str], *, asks_tokens: bool) -> "KnownHosts":
        """Return the names of a listener.

        Args:
            bound: The address that it is bound to.
            allowed: Names that the operator allows; with them no other is known.
            asks_tokens: Whether it answers only clients with a token.
        """
        names = {split[0] for text in allowed if (split := split_host(text)) is not None}
        is_protected = asks_tokens or not is_loopback(bound)
        if is_protected and not names:
            return cls(None)
        return cls(frozenset({*names, _name_of(bound)}))

    def has(self, header: str | None) -> bool:
        """Return whether a request with this Host is meant for the listener.

        One without, which only HTTP/1.0 allows, comes from no browser.
        """
        if self.names is None or header is None:
            return True
        split = split_host(header)
        return split is not None and (split[0] in self.names or is_loopback(split[0]))


def is_same_origin(origin: str, host: str | None) -> bool:
    """Return whether a page of `origin` came from where `host` leads.

    The scheme is that of the page: a proxy in front may be the one that speaks HTTPS.
    """
    found = _ORIGIN.fullmatch(origin.lower())
    asked = split_host(host) if host is not None else None
    page = split_host(found["host"]) if found is not None else None
    if found is None or asked is None or page is None:
        return False
    usual = _DEFAULT_PORTS.get(found["scheme"], "")
    return (page[0], page[1] or usual) == (asked[0], asked[1] or usual)
