"""What the chart lets whom do: admission policies and roles. A real API server has them in tests/integration."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinora.api.names import (
    AGENT_CLUSTER_ROLE,
    AGENT_SERVICE_ACCOUNT,
    CONDITION_ENGINE_READY,
    LABEL_CATALOGUE,
    LIVE_SECRET,
    LIVE_SECRET_TYPE,
    STAGER_CLUSTER_ROLE,
    STAGER_SERVICE_ACCOUNT,
    STORE_SECRET,
    WEIGHTS_CLUSTER_ROLE,
)
from kinora.api.reasons import TERMINAL, Phase
from kinora.api.videojob import Inputs, VideoJobSpec, Workflow
from kinora.api.videojob_status import VideoJobStatus
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.own import read_entries
from kinora.gateway.webhooks.shards import lease_name
from unit.chart.rendered import CHART, objects, one

Object = dict[str, Any]
KEYS = {STORE_SECRET, LIVE_SECRET}
MUTABLE = {"suspend", "cancel", "priority", "ttlSecondsAfterFinished"}


# --- policies


def test_immutable_and_mutable_fields_are_all_fields_of_a_videojob() -> None:
    text = (CHART / "templates/policies.yaml").read_text(encoding="utf-8")
    listed = re.search(r"range list ([^}]*)}}", text)
    assert listed is not None
    immutable = re.findall(r'"(\w+)"', listed.group(1))
    assert len(immutable) == len(set(immutable))
    assert set(immutable) & MUTABLE == set()
    assert set(immutable) | MUTABLE == {field.alias for field in VideoJobSpec.model_fields.values()}


def test_every_policy_is_bound_and_denies_and_fails_closed() -> None:
    found = objects()
    policies = {item["metadata"]["name"]: item for item in found if item["kind"] == "ValidatingAdmissionPolicy"}
    bindings = [item["spec"] for item in found if item["kind"] == "ValidatingAdmissionPolicyBinding"]
    bound = {binding["policyName"] for binding in bindings}
    assert (
        set(policies)
        == bound
        == {
            "kinora-videojob-immutable",
            "kinora-agent-fence",
            "kinora-agent-pod",
            "kinora-stager-fence",
            "kinora-secrets-fence",
            "kinora-gateway-fence",
            "kinora-weights-lease",
        }
    )
    assert {policy["spec"]["failurePolicy"] for policy in policies.values()} == {"Fail"}
    for binding in bindings:
        assert binding["validationActions"] == ["Deny"]
        assert "matchResources" not in binding, "it holds in every namespace"


def test_stagers_may_have_tokens_reviewed_and_nothing_else_outside_their_namespaces() -> None:
    role = one("ClusterRole", "kinora-stager-reviews")
    assert role["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    ]
    binding = one("ClusterRoleBinding", "kinora-stager-reviews")
    assert binding["roleRef"]["name"] == "kinora-stager-reviews"
    assert [subject["name"] for subject in binding["subjects"]] == ["system:serviceaccounts"]
    told = ("--set", "watchNamespaces={films,ads}")
    [watched] = [
        item["subjects"]
        for item in objects(*told)
        if item["kind"] == "ClusterRoleBinding" and item["metadata"]["name"] == "kinora-stager-reviews"
    ]
    assert watched == [
        {"kind": "ServiceAccount", "name": STAGER_SERVICE_ACCOUNT, "namespace": namespace}
        for namespace in ("films", "ads")
    ]


def test_the_agents_fence_looks_at_every_source_that_a_stager_brings() -> None:
    """As many references and files as a job may have, and every field of `spec.inputs`."""
    variables = one("ValidatingAdmissionPolicy", "kinora-agent-fence")["spec"]["variables"]
    fetched = next(entry["expression"] for entry in variables if entry["name"] == "fetched")
    fields = {field.alias for field in Inputs.model_fields.values()}
    assert {name for name in fields if f"'{name}" in fetched} == fields
    for model, field in ((Inputs, "references"), (Workflow, "files")):
        most = next(entry.max_length for entry in model.model_fields[field].metadata if hasattr(entry, "max_length"))
        assert f"[{', '.join(map(str, range(most)))}].filter" in fetched


def test_the_stagers_fence_names_every_field_of_the_status_that_a_stager_does_not_write() -> None:
    policy = one("ValidatingAdmissionPolicy", "kinora-stager-fence")["spec"]
    assert f":{STAGER_SERVICE_ACCOUNT}" in str(policy)
    kept = re.findall(r"object\.status\.\?(\w+) == oldObject\.\?status\.\?(\w+)", str(policy["validations"]))
    assert all(before == after for before, after in kept)
    fields = {field.alias for field in VideoJobStatus.model_fields.values()}
    assert fields - {after for after, _ in kept} == {
        "inputStore",
        "inputs",
        "resolved",
        "conditions",
        "observedGeneration",
    }


def test_the_gateways_fence_names_every_field_of_the_status_but_the_webhook() -> None:
    policy = one("ValidatingAdmissionPolicy", "kinora-gateway-fence")["spec"]
    assert "'system:serviceaccount:kinora-system:films-gateway'" in str(policy["matchConditions"][0]["expression"])
    kept = re.findall(r"object\.status\.\?(\w+) == oldObject\.\?status\.\?(\w+)", str(policy["validations"]))
    assert all(before == after for before, after in kept)
    assert {field.alias for field in VideoJobStatus.model_fields.values()} - {after for after, _ in kept} == {"webhook"}
    assert all(f"'{phase}'" in policy["validations"][0]["expression"] for phase in TERMINAL)


def test_the_fence_knows_the_phases_and_the_account_by_their_names() -> None:
    fence = str(one("ValidatingAdmissionPolicy", "kinora-agent-fence"))
    agents = {Phase.SCHEDULED, Phase.RUNNING, Phase.FINALIZING} | TERMINAL
    assert str([str(phase) for phase in Phase if phase in agents])[1:-1] in fence
    assert f":{AGENT_SERVICE_ACCOUNT}" in fence
    assert CONDITION_ENGINE_READY.startswith("kinora.dev/")


# --- RBAC


def rules(name: str) -> set[tuple[str, str, str]]:
    return {
        (group, resource, verb)
        for rule in one("ClusterRole", name)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_what_an_agent_may_do() -> None:
    assert rules(AGENT_CLUSTER_ROLE) == {
        *(("kinora.dev", "videojobs", verb) for verb in ("get", "list", "watch")),
        ("kinora.dev", "videojobs/status", "patch"),
        ("", "pods/status", "patch"),
        ("", "configmaps", "get"),
        ("", "secrets", "get"),  # kinora-live, by name
    }


def test_what_a_stager_may_do() -> None:
    reads = {("kinora.dev", kind, verb) for kind in ("videojobs", "modelservers") for verb in ("get", "list", "watch")}
    secrets = {("", "secrets", "get"), ("", "secrets", "create")}  # what the policy kinora-secrets-fence narrows
    assert rules(STAGER_CLUSTER_ROLE) == reads | secrets | {("kinora.dev", "videojobs/status", "patch")}


def test_what_a_weights_job_may_do() -> None:
    assert rules(WEIGHTS_CLUSTER_ROLE) == {
        ("", "pods/status", "patch"),
        *(("coordination.k8s.io", "leases", verb) for verb in ("get", "list", "watch", "create", "patch")),
    }


def test_no_role_holds_a_wildcard_or_reads_secrets() -> None:
    for role in objects():
        for rule in role.get("rules", []) if role["kind"] == "ClusterRole" else []:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]
            if role["metadata"]["name"] == "films-gateway-webhook-secrets":  # bound by none, unless somebody says so
                continue
            if "secrets" in rule["resources"]:  # by name, and only by those of the keys between processes of Kinora
                makers = (STAGER_CLUSTER_ROLE, "kinora-operator")  # narrowed by kinora-secrets-fence
                makes = rule["verbs"] == ["create"] and role["metadata"]["name"] in makers
                reads = rule["verbs"] == ["get"] and set(rule.get("resourceNames", ["*"])) <= KEYS
                assert makes or reads, role["metadata"]["name"]
            assert {"escalate", "impersonate"} & set(rule["verbs"]) == set()


def test_what_delivering_webhooks_needs() -> None:
    assert rules("films-gateway-webhooks") == {
        *(("kinora.dev", "videojobs", verb) for verb in ("get", "list", "watch")),
        ("kinora.dev", "videojobs/status", "patch"),
        ("events.k8s.io", "events", "create"),
    }
    (named, made) = one("Role", "films-gateway-webhooks", "--set", "gateway.webhooks.shards=3")["rules"]
    assert named["resourceNames"] == [lease_name(shard) for shard in range(3)]
    assert (named["verbs"], made["verbs"]) == (["get", "list", "watch", "patch"], ["create"])
    off = objects("--set", "gateway.webhooks.enabled=false")
    assert not [found for found in off if "webhook" in found["metadata"]["name"]]


@pytest.mark.parametrize(
    ("value", "bindings"),
    [
        ("[]", []),
        ('["a","b"]', [("RoleBinding", "a"), ("RoleBinding", "b")]),
        ('["*"]', [("ClusterRoleBinding", None)]),
    ],
)
def test_secrets_are_read_where_somebody_says_so(value: str, bindings: list[tuple[str, str | None]]) -> None:
    found = [
        (item["kind"], item["metadata"].get("namespace"))
        for item in objects("--set-json", f"gateway.webhooks.secretNamespaces={value}")
        if item["kind"].endswith("Binding") and item.get("roleRef", {}).get("name") == "films-gateway-webhook-secrets"
    ]
    assert found == bindings


def test_listening_to_renders_takes_rights_that_go_with_it() -> None:
    assert ("", "pods", "get") in rules("films-gateway")
    assert ("", "pods", "list") not in rules("films-gateway")
    fence = one("ValidatingAdmissionPolicy", "kinora-secrets-fence")["spec"]["validations"][0]["expression"]
    assert f"object.metadata.name == '{LIVE_SECRET}' && object.type == '{LIVE_SECRET_TYPE}'" in fence
    for without in ("gateway.live.enabled=false", "gateway.enabled=false"):
        arguments = ("--set", without)
        for role in ("kinora-operator", AGENT_CLUSTER_ROLE, *(["films-gateway"] if "live" in without else [])):
            found = one("ClusterRole", role, *arguments)["rules"]
            assert LIVE_SECRET not in str(found), role
            assert not [rule for rule in found if rule["resources"] == ["secrets"] and rule["verbs"] == ["create"]]
        env = one("Deployment", "films-operator", *arguments)["spec"]["template"]["spec"]["containers"][0]["env"]
        assert {"name": "KINORA_LIVE", "value": "false"} in env
        assert {"name": "KINORA_LIVE_POLICY", "value": "false"} in env
    assert ("", "pods", "get") not in {
        (group, resource, verb)
        for rule in one("ClusterRole", "films-gateway", "--set", "gateway.live.enabled=false")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_may_bind_the_roles_of_agents_stagers_and_weights_jobs_alone() -> None:
    role = one("ClusterRole", "kinora-operator")
    binding = [rule for rule in role["rules"] if "bind" in rule["verbs"]]
    assert [rule["resourceNames"] for rule in binding] == [
        [AGENT_CLUSTER_ROLE, STAGER_CLUSTER_ROLE, WEIGHTS_CLUSTER_ROLE]
    ]


def test_roles_for_people_hold_no_status_and_servers_are_for_admins() -> None:
    for name in ("kinora-view", "kinora-edit", "kinora-modelserver-edit"):
        assert not [resource for _, resource, _ in rules(name) if resource.endswith("/status")]
    labels = {
        item["metadata"]["name"]: [label for label in item["metadata"]["labels"] if "aggregate-to" in label]
        for item in objects()
        if item["kind"] == "ClusterRole"
    }
    assert labels["kinora-edit"] == ["rbac.authorization.k8s.io/aggregate-to-edit"]
    assert labels["kinora-modelserver-edit"] == ["rbac.authorization.k8s.io/aggregate-to-admin"]
    assert not [label for label in str(objects("--set", "rbac.aggregate=false")).split() if "aggregate-to" in label]


def test_models_are_read_from_the_operator_s_own_namespace_alone() -> None:
    everywhere = [rule for rule in rules("kinora-operator") if rule[1] == "configmaps"]
    assert everywhere == [("", "configmaps", "get")], "by name, for raw workflows: nothing is listed"
    role = one("Role", "kinora-operator-models")
    assert role["metadata"]["namespace"] == "kinora-system"
    assert role["rules"] == [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]
    binding = one("RoleBinding", "kinora-operator-models")
    assert [(who["name"], who["namespace"]) for who in binding["subjects"]] == [("films-operator", "kinora-system")]


def test_models_of_the_values_become_entries_that_the_operator_reads(tmp_path: Path) -> None:
    values = {"models": {"tune": {"extends": "wan2.1-vace-14b", "name": "tune", "defaults": {"steps": 24}}}}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    made = one("ConfigMap", "films-models", "--values", str(file))
    assert made["metadata"]["labels"][LABEL_CATALOGUE] == "true"
    read = read_entries({"system/films-models": made["data"]}, load_catalogue())
    assert (dict(read.bad), read.good["tune"].model.defaults.steps) == ({}, 24)
    assert not [found for found in objects() if found["kind"] == "ConfigMap" and "models" in found["metadata"]["name"]]


# --- replicas


def pod_spec(*arguments: str) -> Object:
    spec: Object = one("Deployment", "films-operator", *arguments)["spec"]["template"]["spec"]
    return spec


def test_two_replicas_of_which_an_update_or_a_drain_leaves_a_warm_one() -> None:
    deployment = one("Deployment", "films-operator")
    assert deployment["spec"]["replicas"] == 2
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert deployment["spec"]["strategy"] == rolling
    budget = one("PodDisruptionBudget", "films-operator")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == deployment["spec"]["selector"]
    terms = pod_spec()["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert [term["podAffinityTerm"]["topologyKey"] for term in terms] == ["kubernetes.io/hostname"]
    assert terms[0]["podAffinityTerm"]["labelSelector"] == deployment["spec"]["selector"]


def test_one_replica_has_no_budget_that_would_only_be_in_the_way() -> None:
    kinds = [found["kind"] for found in objects("--set", "operator.replicas=1,gateway.replicas=1")]
    assert "PodDisruptionBudget" not in kinds
    assert one("Deployment", "films-operator", "--set", "operator.replicas=1")["spec"]["replicas"] == 1


def test_what_the_installer_says_of_places_holds() -> None:
    own = '{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[]}}}'
    assert pod_spec("--set-json", f"operator.affinity={own}")["affinity"] == json.loads(own)
    spread = '[{"topologyKey":"zone","maxSkew":2}]'
    assert pod_spec("--set-json", f"operator.topologySpreadConstraints={spread}")["topologySpreadConstraints"] == [
        {
            "topologyKey": "zone",
            "maxSkew": 2,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": one("Deployment", "films-operator")["spec"]["selector"],
        }
    ]


def test_the_lease_is_reached_by_its_name_in_the_releases_own_namespace() -> None:
    role = one("Role", "films-operator")
    assert role["metadata"]["namespace"] == "kinora-system"
    assert role["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["films-operator"],
            "verbs": ["get", "list", "watch", "patch"],
        },
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    ]
    bound = one("RoleBinding", "films-operator")
    assert bound["roleRef"]["kind"] == "Role"
    assert [subject["name"] for subject in bound["subjects"]] == ["films-operator"]
    assert not [rule for rule in one("ClusterRole", "kinora-operator")["rules"] if "leases" in rule["resources"]]
    env = {entry["name"]: entry for entry in pod_spec()["containers"][0]["env"]}
    assert env["KINORA_LEASE_NAME"]["value"] == "films-operator"
    assert env["POD_NAMESPACE"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_the_lease_does_not_wait_behind_the_operators_other_requests() -> None:
    schema = one("FlowSchema", "kinora-system-films-operator-lease")["spec"]
    assert schema["priorityLevelConfiguration"] == {"name": "leader-election"}
    (rule,) = schema["rules"]
    assert rule["subjects"] == [
        {"kind": "ServiceAccount", "serviceAccount": {"name": "films-operator", "namespace": "kinora-system"}}
    ]
    assert [one["resources"] for one in rule["resourceRules"]] == [["leases"]]
    (gateways,) = one("FlowSchema", "kinora-system-films-gateway-lease")["spec"]["rules"]
    assert gateways["subjects"][0]["serviceAccount"] == {"name": "films-gateway", "namespace": "kinora-system"}
    assert gateways["resourceRules"][0]["namespaces"] == ["kinora-system"]
    none = ("--set", "operator.flowSchema=false,gateway.flowSchema=false")
    assert "FlowSchema" not in {found["kind"] for found in objects(*none)}
    without = objects("--set", "gateway.webhooks.enabled=false")
    assert [found["metadata"]["name"] for found in without if found["kind"] == "FlowSchema"] == [
        "kinora-system-films-operator-lease"
    ]
