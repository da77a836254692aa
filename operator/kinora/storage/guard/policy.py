"""What an administrator may open on top of the public internet, and the verdict on a target and its addresses. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Self

from kinora.recipes.faults import Fault
from kinora.storage.guard.addresses import METADATA, Address, Network, refusal
from kinora.storage.guard.urls import PORTS, Target, UrlRefused

_HOST = re.compile(r"(\*\.)?[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]*[a-z0-9_])?)*(:[0-9]{1,5})?")
_NEVER_BY_NAME = ("unspecified", "multicast", "broadcast", "link-local", "has a zone id", "no IP address")


@dataclass(frozen=True, slots=True)
class Policy:
    """Public addresses on ports 80 and 443, and what is opened here. `schemes` may leave plain http out.

    `hosts`: names (`minio.storage.svc`, `*.internal.example`, with `:9000` for a port of its own) that may have private
    addresses. Metadata services, link-local and multicast stay shut to a name: they take an entry in `networks`.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({80, 443})
    schemes: frozenset[str] = frozenset(PORTS)

    @classmethod
    def of(
        cls,
        hosts: Iterable[str] = (),
        networks: Iterable[str] = (),
        ports: Iterable[int] = (80, 443),
        field: str = "",
        *,
        http: bool = True,
    ) -> Self:
        """From settings as text; without `http` only https. ValueError names the entry; `field` is put before it."""
        read: list[Network] = []
        for text in networks:
            try:
                read.append(ip_network(text))
            except ValueError as error:
                allowed = "networks such as 10.1.0.0/16"
                raise ValueError(str(Fault(f"{field}networks", text, allowed, str(error)))) from None
        names = frozenset(host.lower() for host in hosts)
        for host in names:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    str(Fault(f"{field}hosts", host, "names such as minio.storage.svc:9000, *.example.org"))
                )
        return cls(names, tuple(read), frozenset(ports), frozenset(PORTS if http else {"https"}))

    def check_target(self, target: Target, field: str) -> None:
        """Refuse schemes, ports, and hosts that are refused addresses themselves. Raises UrlRefused."""
        if target.scheme not in self.schemes:
            raise UrlRefused(Fault(f"{field}: scheme", target.scheme, ", ".join(sorted(self.schemes))))
        if target.port not in self.ports and not self._opened(target, with_port=True):
            ports = ", ".join(str(port) for port in sorted(self.ports))
            raise UrlRefused(Fault(f"{field}: port", target.port, f"{ports}, or what the administrator opens"))
        if target.address is not None:
            self.check_address(target, target.address, field)

    def check_address(self, target: Target, address: Address | str, field: str) -> None:
        """Refuse an address that this target may not be reached at. Raises UrlRefused."""
        reason = refusal(address)
        if reason is None or self._address_opened(target, address, reason):
            return
        where = str(address) if target.address is not None else f"{target.host}, which resolves to {address}"
        allowed = "public internet addresses, or what the administrator opens"
        raise UrlRefused(Fault(f"{field}: host", f"{where} ({reason})", allowed))

    def _address_opened(self, target: Target, address: Address | str, reason: str) -> bool:
        if isinstance(address, str):
            try:
                address = ip_address(address)
            except ValueError:
                return False
        if reason != "has a zone id" and any(_holds(network, address) for network in self.networks):
            return True
        by_name = self._opened(target, with_port=False) or self._opened(target, with_port=True)
        return by_name and address not in METADATA and reason not in _NEVER_BY_NAME

    def _opened(self, target: Target, *, with_port: bool) -> bool:
        suffix = f":{target.port}" if with_port else ""
        if target.host + suffix in self.hosts:
            return True
        labels = target.host.split(".")
        return target.address is None and any(
            f"*.{'.'.join(labels[index:])}{suffix}" in self.hosts for index in range(1, len(labels))
        )


def _holds(network: Network, address: Address) -> bool:
    if isinstance(network, IPv4Network):
        return address.version == 4 and address in network
    return address.version == 6 and address in network
