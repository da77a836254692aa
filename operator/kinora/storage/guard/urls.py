"""Which URLs may be fetched, by their text alone. Pure. Strict on purpose.

Every parser reads an odd URL in its own way, and the gap between two readings is where a guard is walked around. So
there is one reading here: anything unusual in the host is refused rather than normalised, and the fetcher never parses
the text again.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

from kinora.recipes.faults import Fault
from kinora.storage.guard.addresses import Address

MAX_URL = 2048
PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SAFE = "/?:@!$&'()*+,;=-._~%[]"
_USER = re.compile(r"//[^/]*@")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class UrlRefused(Exception):  # noqa: N818 - a verdict
    """A URL that is not fetched. `fault` names the field, what was found, and what is allowed."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that was read: `host` in lower case, without brackets; `path` with its query, ready for a request line."""

    scheme: str
    host: str
    port: int
    path: str
    address: Address | None = None
    "The address where the host is one."

    @property
    def authority(self) -> str:
        """The host as a URL and the Host header hold it, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if isinstance(self.address, IPv6Address) else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL. It may hold a signature: not for messages."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def shown(self) -> str:
        """The URL for messages: without its query."""
        return f"{self.scheme}://{self.authority}{self.path.partition('?')[0]}"


def parse_url(text: str, field: str) -> Target:
    """Read the URL given in `field`. Raises UrlRefused."""
    _check_text(text, field)
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in PORTS:
        raise UrlRefused(Fault(field, _shown(text), "URLs that begin with https:// or http://"))
    rest = rest.partition("#")[0]
    end = min((index for index in (rest.find("/"), rest.find("?")) if index >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    host, port, address = _authority(authority, field)
    if not path.startswith("/"):
        path = "/" + path
    escaped = quote(_ESCAPE.sub("%25", path), safe=_SAFE)
    return Target(scheme, host, PORTS[scheme] if port is None else port, escaped, address)


def _check_text(text: str, field: str) -> None:
    if not text or len(text) > MAX_URL:
        raise UrlRefused(Fault(field, f"{len(text)} characters long", f"URLs of 1 to {MAX_URL} characters"))
    bad = next((char for char in text if char in "\\\x7f" or char <= " " or not char.isprintable()), None)
    if bad is not None:
        allowed = "URLs without spaces, line ends, control characters and backslashes"
        raise UrlRefused(Fault(field, f"a URL that holds {bad!r}", allowed))


def _authority(authority: str, field: str) -> tuple[str, int | None, Address | None]:
    if "@" in authority:
        raise UrlRefused(Fault(field, "a URL with a user or password before the host", "URLs without them"))
    if authority.startswith("["):
        literal, bracket, tail = authority[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise UrlRefused(Fault(f"{field}: host", authority, "an IPv6 address in brackets, then a port or nothing"))
        address: Address | None = _ipv6(literal, field)
        return str(address), _port(tail[1:], field) if tail else None, address
    host, colon, port = authority.partition(":")
    host, address = _host(host.lower(), field)
    return host, _port(port, field) if colon else None, address


def _ipv6(literal: str, field: str) -> IPv6Address:
    try:
        if "%" in literal:
            raise ValueError
        return IPv6Address(literal)
    except ValueError:
        raise UrlRefused(Fault(f"{field}: host", f"[{literal}]", "an IPv6 address without a zone id")) from None


def _host(host: str, field: str) -> tuple[str, Address | None]:
    where = f"{field}: host"
    if not host:
        raise UrlRefused(Fault(where, None, "a host name or an IP address"))
    if not host.isascii():
        raise UrlRefused(Fault(where, host, "ASCII names; write an international name in its xn-- form"))
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1] or (labels[-2] if len(labels) > 1 else "")):  # a browser reads it as an address
        try:
            return host, IPv4Address(host)
        except ValueError:
            allowed = "IPv4 addresses as four decimal numbers from 0 to 255, without leading zeros"
            raise UrlRefused(Fault(where, host, allowed)) from None
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        allowed = "names of letters, digits, - and _ between single dots, no dot at the end, nothing %-encoded"
        raise UrlRefused(Fault(where, host, allowed))
    return host, None


def _port(text: str, field: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise UrlRefused(Fault(f"{field}: port", text or "empty", "1 to 65535, in digits"))
    return int(text)


def _shown(text: str) -> str:
    return _USER.sub("//", text.partition("?")[0])
