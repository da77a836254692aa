"""Which stagers a namespace has, and what they are made of."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kinora.api.allow import Allow
from kinora.api.intake import artifact_store, claim_store
from kinora.api.names import stager_name
from kinora.api.stagerconfig import CONFIG_VARIABLE, StagerConfig, StagerValues
from kinora.controller.plan import Plan
from kinora.controller.stager import desired
from kinora.controller.stager.decide import decide, is_available
from kinora.kube.resources import DEPLOYMENT, NETWORK_POLICY, ROLE_BINDING, SERVICE, SERVICE_ACCOUNT
from unit.controller.builders import SETTINGS, VACE, server

Object = dict[str, Any]


def named(name: str, claim: str = "videos", **metadata: Any) -> Object:
    made = server(name=name, artifacts={"claimName": claim})
    return {**made, "metadata": {**made["metadata"], "uid": f"uid-{name}", **metadata}}


def seen(body: Object) -> Object:
    """The Deployment as a watch shows it."""
    return {**body, "metadata": {**body["metadata"], "uid": "d", "resourceVersion": "1"}, "status": {"replicas": 1}}


def settled(servers: list[Object], settings: Any = SETTINGS, entries: dict[str, str] | None = None) -> list[Object]:
    """The Deployments as they are once a plan was carried out."""
    plan = decide("films", servers, [], settings, entries=entries)
    return [seen(entry.body) for entry in plan.apply if entry.resource is DEPLOYMENT]


def made(plan: Plan) -> list[str]:
    return [f"{entry.resource.kind}/{entry.body['metadata']['name']}" for entry in (*plan.create, *plan.apply)]


def test_one_deployment_an_artifact_store_owned_by_every_server_that_uses_it() -> None:
    servers = [named("a"), named("b"), named("c", "other")]
    plan = decide("films", servers, [], SETTINGS)
    assert made(plan) == [
        "ServiceAccount/kinora-stager",
        "RoleBinding/kinora-stager",
        "NetworkPolicy/kinora-stager",
        f"Deployment/{stager_name('videos')}",
        f"Deployment/{stager_name('other')}",
        f"Service/{stager_name('videos')}",
        f"Service/{stager_name('other')}",
    ]
    for entry in (plan.apply[1], plan.apply[3]):
        assert {owner["uid"] for owner in entry.body["metadata"]["ownerReferences"]} == {"uid-a", "uid-b"}
    assert {entry["uid"] for entry in plan.apply[0].body["metadata"]["ownerReferences"]} == {"uid-a", "uid-b", "uid-c"}
    assert {entry.resource for entry in plan.create} == {SERVICE_ACCOUNT, ROLE_BINDING}
    assert {entry.resource for entry in plan.apply} == {DEPLOYMENT, NETWORK_POLICY, SERVICE}


def test_nothing_is_written_that_is_true_already() -> None:
    servers = [named("a"), named("b")]
    running = settled(servers)
    assert decide("films", servers, running, SETTINGS, children_made=True).is_empty
    again = decide("films", servers, running, SETTINGS)
    assert again.apply == ()
    assert made(again) == [
        "ServiceAccount/kinora-stager", "RoleBinding/kinora-stager", "NetworkPolicy/kinora-stager",
        f"Service/{stager_name('videos')}",
    ], "each is only created, which says nothing where it is there"  # fmt: skip


def test_another_network_policy_is_written() -> None:
    servers = [named("a")]
    opened = replace(SETTINGS, stager=StagerValues(network_policy=True, allow=Allow(ports=[8443])))
    plan = decide("films", servers, settled(servers), opened, children_made=True)
    assert made(plan)[0] == "NetworkPolicy/kinora-stager"


def test_an_upgrade_rolls_a_stager_only_when_it_changes_it() -> None:
    servers = [named("a")]
    running = settled(servers)
    other_operator = replace(SETTINGS, engine_image="standin:2", workers=3, http_port=9, resync_seconds=1)
    assert decide("films", servers, running, other_operator, children_made=True).is_empty
    for changed in (
        replace(SETTINGS, agent_image="kinora:2"),
        replace(SETTINGS, stager=StagerValues(parallel=9)),
        replace(SETTINGS, image_pull_secrets=("registry",)),
        replace(SETTINGS, model_aliases={"hosted": "wan2.1-vace-14b"}),
    ):
        plan = decide("films", servers, running, changed, children_made=True)
        assert [entry.resource for entry in plan.apply] == [NETWORK_POLICY, DEPLOYMENT, SERVICE]


def test_another_entry_of_a_model_is_told_to_its_stagers() -> None:
    servers = [named("a")]
    running = settled(servers, entries={VACE: "one"})
    one = {VACE: "one", "another-model": "of no ModelServer of the claim"}
    assert decide("films", servers, running, SETTINGS, entries=one, children_made=True).is_empty
    [_, told, _] = decide("films", servers, running, SETTINGS, entries={VACE: "two"}, children_made=True).apply
    assert '"modelEntries": ["two"]' in told.body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]


def test_owners_follow_the_servers() -> None:
    running = settled([named("a")])
    plan = decide("films", [named("a"), named("b")], running, SETTINGS, children_made=True)
    name = stager_name("videos")
    assert made(plan) == ["NetworkPolicy/kinora-stager", f"Deployment/{name}", f"Service/{name}"]
    going = named("b", deletionTimestamp="2026-05-01T12:00:00Z")
    assert decide("films", [named("a"), going], running, SETTINGS, children_made=True).is_empty


def test_a_stager_that_nobody_needs_goes() -> None:
    running = settled([named("a")])
    gone = decide("films", [named("a", "other")], running, SETTINGS, children_made=True)
    both = [(DEPLOYMENT, stager_name("videos"), "d"), (SERVICE, stager_name("videos"), None)]
    assert [(entry.resource, entry.name, entry.uid) for entry in gone.delete] == both
    other = stager_name("other")
    assert made(gone) == ["NetworkPolicy/kinora-stager", f"Deployment/{other}", f"Service/{other}"]
    off = replace(SETTINGS, stager=StagerValues(enabled=False))
    plan = decide("films", [named("a")], running, off)
    assert (made(plan), {entry.name for entry in plan.delete}) == ([], {stager_name("videos")})
    assert decide("films", [], [], SETTINGS).is_empty


def test_the_pod_is_told_everything_that_it_reads() -> None:
    settings = replace(
        SETTINGS,
        image_pull_secrets=("registry",),
        model_aliases={"hosted": "wan2.1-vace-14b"},
        stager=StagerValues(
            allow=Allow(hosts=["minio:9000"]),
            node_selector={"a": "b"},
            tolerations=[{"key": "x"}],
            resources={"limits": {}},
        ),
    )
    pod = desired.deployment("films", claim_store("videos"), [named("a")], settings)["spec"]["template"]["spec"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"a": "b"}, [{"key": "x"}])
    [container] = pod["containers"]
    assert container["command"] == ["kinora", "stager"]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    config = StagerConfig.model_validate_json(told[CONFIG_VARIABLE] or "")
    assert (config.artifact_claim, config.allow.hosts) == ("videos", ["minio:9000"])
    assert config.model_aliases == {"hosted": "wan2.1-vace-14b"}
    assert {"name": "artifacts", "persistentVolumeClaim": {"claimName": "videos"}} in pod["volumes"]
    assert {"livenessProbe", "readinessProbe"} < container.keys()


BUCKET: Object = {
    "bucket": "films", "endpoint": "https://minio.storage:9443", "secretName": "films-bucket",
    "caConfigMap": {"name": "trust", "key": "ca.crt"},
}  # fmt: skip


def on_bucket(name: str, **s3: Any) -> Object:
    made = named(name)
    return {**made, "spec": {**made["spec"], "artifacts": {"s3": {**BUCKET, **s3}}}}


def test_the_stager_of_a_bucket_has_its_credentials_as_files_and_no_claim() -> None:
    servers = [on_bucket("b"), on_bucket("a", secretName="other"), on_bucket("c", prefix="c"), named("d")]
    plan = decide("films", servers, [], SETTINGS)
    bodies = [entry.body for entry in plan.apply if entry.resource is DEPLOYMENT]
    assert len({body["metadata"]["name"] for body in bodies}) == 3
    store = artifact_store(servers[0])
    assert store is not None
    [body] = [body for body in bodies if body["metadata"]["name"] == stager_name(store.name)]
    assert body["metadata"]["annotations"]["kinora.dev/artifact-store"] == "s3://films/"
    assert {owner["name"] for owner in body["metadata"]["ownerReferences"]} == {"a", "b"}
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert body["spec"]["strategy"] == rolling, "agents publish by what it signs"
    pod = body["spec"]["template"]["spec"]
    secret = {"secretName": "other", "defaultMode": 0o440}  # of the first ModelServer by name
    trust = {"name": "trust", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    assert [one for one in pod["volumes"] if one["name"] != "tmp"] == [
        {"name": "artifacts-secret", "secret": secret}, {"name": "artifacts-ca", "configMap": trust},
    ]  # fmt: skip
    [container] = pod["containers"]
    assert {one["mountPath"] for one in container["volumeMounts"]} == {
        "/tmp", "/kinora/store/secret", "/kinora/store/ca",
    }  # fmt: skip
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    config = StagerConfig.model_validate_json(told[CONFIG_VARIABLE] or "")
    assert config.store == store
    policy = desired.network_policy("films", servers, SETTINGS.stager)["spec"]
    assert 9443 in {port["port"] for port in policy["egress"][1]["ports"]}


def egress(values: StagerValues) -> tuple[set[int], set[str]]:
    policy = desired.network_policy("films", [named("a")], values)["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    probes, gateways = policy["ingress"]
    assert ([port["port"] for port in probes["ports"]], "from" in probes) == ([8782], False)
    assert [port["port"] for port in gateways["ports"]] == [8783]
    whence, agents = gateways["from"]
    assert whence["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert agents["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "server"
    assert "namespaceSelector" not in agents, "agents of other namespaces are not let in"
    dns, rest = policy["egress"]
    assert {(port["protocol"], port["port"]) for port in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
    shut = {cidr for peer in rest["to"] for cidr in peer["ipBlock"]["except"]}
    return {port["port"] for port in rest["ports"]}, shut


def test_the_network_policy_shuts_metadata_services_and_opens_the_ports_that_are_fetched_from() -> None:
    ports, shut = egress(StagerValues())
    assert ports == {80, 443, 6443}
    assert {"169.254.0.0/16", "100.100.100.200/32", "fe80::/10"} <= shut
    allow = Allow(hosts=["minio:9000", "cdn"], networks=["169.254.0.0/16"], ports=[8080])
    ports, shut = egress(StagerValues(allow=allow))
    assert ports == {443, 6443, 8080, 9000}
    assert "169.254.0.0/16" not in shut, "an administrator has opened it by name"
    without = decide("films", [named("a")], [], replace(SETTINGS, stager=StagerValues(network_policy=False)))
    assert not [entry for entry in made(without) if entry.startswith("NetworkPolicy")]


def test_the_service_leads_to_the_store_of_its_own_stager_alone() -> None:
    service = desired.service("films", claim_store("videos"), [named("a")])
    [pod] = [desired.deployment("films", claim_store("videos"), [named("a")], SETTINGS)["spec"]["template"]]
    selector, labels = service["spec"]["selector"], pod["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert selector["kinora.dev/stager"] == service["metadata"]["name"] == stager_name("videos")
    [port] = service["spec"]["ports"]
    named_ports = {one["name"]: one["containerPort"] for one in pod["spec"]["containers"][0]["ports"]}
    assert (port["port"], named_ports[port["targetPort"]]) == (8783, 8783)


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        (None, False),
        ({}, False),
        ({"status": {"availableReplicas": 0}}, False),
        ({"status": {"availableReplicas": 1}}, True),
    ],
)
def test_a_deployment_is_available_when_a_pod_is(found: Object | None, ready: bool) -> None:
    assert is_available(found) is ready


def test_a_name_is_a_function_of_the_store() -> None:
    assert stager_name("videos") == stager_name("videos") != stager_name("video")
    assert len(stager_name("c" * 253)) == len("kinora-stager-") + 8
    assert json.dumps(
        desired.deployment("films", claim_store("videos"), [named("b"), named("a")], SETTINGS)
    ) == json.dumps(desired.deployment("films", claim_store("videos"), [named("a"), named("b")], SETTINGS))
