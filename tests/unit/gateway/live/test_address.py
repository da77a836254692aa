"""The gateway is led to the pod that renders, and to no other address."""

from __future__ import annotations

from typing import Any

import pytest

from kinora.gateway.live.address import NoAddress, address_of, host_of


def pod(ip: str = "10.1.2.3", uid: str = "u", **spec: Any) -> dict[str, Any]:
    status = {"podIP": ip} if ip else {}
    return {"metadata": {"uid": uid}, "spec": {"serviceAccountName": "kinora-agent", **spec}, "status": status}


def test_the_pods_own_address() -> None:
    assert address_of(pod(), "u") == "10.1.2.3"
    assert address_of(pod("100.64.3.4"), "u") == "100.64.3.4"  # ranges that clouds give pods
    assert address_of(pod("fd00:10:244::5"), "u") == "[fd00:10:244::5]"
    assert address_of(pod("2600:1f18::9"), "u") == "[2600:1f18::9]"


def test_another_pod_of_the_name_no_server_pod_and_a_nodes_address_are_none() -> None:
    for wrong, words in (
        (pod(uid="another"), "another pod"),
        (pod(serviceAccountName="default"), "no server pod"),
        (pod(hostNetwork=True), "node's address"),
        (pod(""), "no address yet"),
    ):
        with pytest.raises(NoAddress, match=words):
            address_of(wrong, "u")


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.8.8.8", "::1", "169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0", "100.100.100.200",
        "0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fd00:ec2::254",
        "168.63.129.16", "10.0.0.1:80", "10.0.0.1/x", "evil.example", "0x7f000001", "2130706433", "10.0.0.1\n",
    ],
)  # fmt: skip
def test_what_no_pod_has_is_refused(text: str) -> None:
    with pytest.raises(NoAddress):
        host_of(text)
