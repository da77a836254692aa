"""The gateway's NetworkPolicy: what may come in, and where it may go. No network enforces it here."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

from kinora.api.names import COMPONENT_SERVER, COMPONENT_STAGER
from unit.chart.rendered import objects, one

Object = dict[str, Any]


def gateways_network(*arguments: str) -> tuple[list[Object], list[Object]]:
    spec = one("NetworkPolicy", "films-gateway", *arguments)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    deployment = one("Deployment", "films-gateway")["spec"]
    assert spec["podSelector"]["matchLabels"] == deployment["selector"]["matchLabels"]
    return spec["ingress"], spec["egress"]


def ports(rule: Object) -> list[int]:
    assert all(one["protocol"] == "TCP" or one["port"] == 53 for one in rule["ports"])
    return [one["port"] for one in rule["ports"]]


def reaches(rule: Object, address: str) -> bool:
    """Whether the rule lets an address through that is no pod's."""
    where = ip_address(address)

    def holds(cidr: str) -> bool:
        network = ip_network(cidr)
        return network.version == where.version and where in network

    blocks = [peer["ipBlock"] for peer in rule["to"] if "ipBlock" in peer]
    return any(holds(one["cidr"]) and not any(map(holds, one.get("except", []))) for one in blocks)


def test_the_gateway_reaches_what_it_needs_and_webhooks_the_public_internet_alone() -> None:
    from kinora.api import names
    from kinora.storage.guard.addresses import METADATA

    ingress, egress = gateways_network()
    containers = one("Deployment", "films-gateway")["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [ports(rule) for rule in ingress] == [[port["containerPort"]] for port in containers]
    assert not any("from" in rule for rule in ingress)
    dns, api, stores, agents, hooks = egress
    assert "to" not in dns
    assert ports(api) == [443, 6443]
    assert reaches(api, "10.96.0.1")
    for rule, component, port in (
        (stores, COMPONENT_STAGER, names.STORE_PORT),
        (agents, COMPONENT_SERVER, names.AGENT_LIVE_PORT),
    ):
        (peer,) = rule["to"]
        assert ports(rule) == [port]
        assert peer["namespaceSelector"] == {}
        assert peer["podSelector"]["matchLabels"] == {names.LABEL_NAME: "kinora", names.LABEL_COMPONENT: component}
    assert ports(hooks) == [80, 443]
    assert reaches(hooks, "93.184.216.34")
    assert reaches(hooks, "2606:2800:220:1::1")
    for address in ("10.1.2.3", "172.20.0.1", "192.168.0.1", "127.0.0.1", "100.64.0.1", "fd12::1", "64:ff9b::a00:1"):
        assert not reaches(hooks, address), address
    for address in map(str, METADATA):
        assert not reaches(hooks, address), address
        assert not reaches(api, address), address


def test_what_the_installer_opens_of_the_gateways_network_is_open() -> None:
    values = {
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "apiServer": ["10.0.0.10/32"],
        },
        "webhooks": {
            "allow": {"hosts": ["hooks.apps.svc:8081", "plain"], "networks": ["10.20.0.0/16"], "ports": [8443]}
        },
        "promptExtend": {"url": "http://llm.films.svc:9000/v1"},
    }
    ingress, egress = gateways_network("--set-json", f"gateway={json.dumps(values)}")
    assert [rule["from"] for rule in ingress] == [values["networkPolicy"][name] for name in ("from", "metricsFrom")]
    _, api, _, _, hooks, hosts, prompts = egress
    assert [peer["ipBlock"]["cidr"] for peer in api["to"]] == ["10.0.0.10/32"]
    assert ports(hooks) == [8443]
    assert reaches(hooks, "10.20.3.4")
    assert not reaches(hooks, "10.21.3.4")
    assert ports(hosts) == [8081, 8443]
    assert reaches(hosts, "10.21.3.4")
    assert not reaches(hosts, "169.254.169.254")
    assert ports(prompts) == [9000]
    for url, port in (("https://llm.example/v1", 443), ("http://llm.example", 80)):
        _, found = gateways_network("--set", f"gateway.promptExtend.url={url}")
        assert ports(found[-1]) == [port]
    for off in ("webhooks", "live"):
        _, without = gateways_network("--set", f"gateway.{off}.enabled=false")
        assert len(without) == 4
    for off in ("gateway.enabled=false", "gateway.networkPolicy.enabled=false"):
        assert "NetworkPolicy" not in {found["kind"] for found in objects("--set", off)}
