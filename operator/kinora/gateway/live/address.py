"""Where the agent of a server pod is reached: from the pod as the API server has it, and from nothing else. Pure.

Pod addresses are written by kubelets (the fence keeps agents from changing them). Still the gateway is led nowhere but
to a pod's own address: what no pod network hands out is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from kinora.api import names
from kinora.storage.guard.addresses import METADATA


class NoAddress(Exception):  # noqa: N818 - a verdict
    """The pod is not the one that renders, or has no address that may be connected to; the message says which."""


def address_of(pod: Mapping[str, Any], uid: str) -> str:
    """The host of a URL: the address of the server pod of that UID. NoAddress."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    if metadata.get("uid") != uid:
        raise NoAddress("another pod has its name now")
    if spec.get("serviceAccountName") != names.AGENT_SERVICE_ACCOUNT:
        raise NoAddress("it is no server pod")
    if spec.get("hostNetwork"):
        raise NoAddress("it has its node's address, not one of its own")
    return host_of(str(status.get("podIP") or ""))


def host_of(text: str) -> str:
    """An address as the host of a URL. NoAddress where no pod can have it."""
    try:
        address = ip_address(text)
    except ValueError:
        raise NoAddress("it has no address yet" if not text else "its address is none") from None
    mapped = getattr(address, "ipv4_mapped", None)
    special = (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.version == 4 and address.is_reserved)
    )
    if special or mapped is not None or address in METADATA or getattr(address, "scope_id", None):
        raise NoAddress("its address is none of a pod")
    return f"[{address}]" if address.version == 6 else str(address)
