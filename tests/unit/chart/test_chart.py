"""The chart without a cluster: what its values may be, and how its pods are hardened. Rights: test_rights.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinora.api.intake import claim_store
from kinora.api.modelserver import ModelServerSpec
from kinora.api.names import (
    COMPONENT_SERVER,
    COMPONENT_STAGER,
)
from kinora.api.webhooks import ENABLED_VARIABLE
from kinora_cluster import ROOT
from unit.chart.rendered import CHART, Object, objects, one, render

CLUSTER_SCOPED = (
    "ClusterRole",
    "ClusterRoleBinding",
    "FlowSchema",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)


# --- pods


@pytest.mark.parametrize("arguments", [(), ("--set", "metrics.port=9000,engine.image=standin:1,watchNamespaces={a,b}")])
def test_every_pod_is_restricted(arguments: tuple[str, ...]) -> None:
    templates = [found["spec"]["template"]["spec"] for found in objects(*arguments) if found["kind"] == "Deployment"]
    assert templates
    for pod in templates:
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all("hostPath" not in volume for volume in pod["volumes"])


def test_the_operator_is_told_what_its_settings_read() -> None:
    from kinora.controller import settings

    read = set(re.findall(r'env(?:\.get\(|\[)"(\w+)"', Path(settings.__file__).read_text(encoding="utf-8")))
    read.add(ENABLED_VARIABLE)
    arguments = ("--set", "image.tag=v9,engine.image=e:1,watchNamespaces={a,b},metrics.port=9000")
    deployment = one("Deployment", "films-operator", *arguments)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert read <= set(env)
    assert (env["KINORA_IMAGE"], env["KINORA_ENGINE_IMAGE"]) == ("kinora:v9", "e:1")
    assert (env["KINORA_NAMESPACES"], env["KINORA_HTTP_PORT"]) == ("a,b", "9000")
    assert env["KINORA_WATERMARK"] in ("", None)
    assert container["ports"] == [{"name": "metrics", "containerPort": 9000}]
    assert env[ENABLED_VARIABLE] == "true"
    for without in ("gateway.enabled=false", "gateway.webhooks.enabled=false"):
        container = one("Deployment", "films-operator", "--set", without)["spec"]["template"]["spec"]["containers"][0]
        assert {"name": ENABLED_VARIABLE, "value": "false"} in container["env"]


def test_the_operator_reads_the_stagers_values_as_they_are_given() -> None:
    from kinora.api.stagerconfig import CHART_VARIABLE, StagerValues
    from kinora.controller.settings import stager_values

    def told(*arguments: str) -> StagerValues:
        container = one("Deployment", "films-operator", *arguments)["spec"]["template"]["spec"]["containers"][0]
        return stager_values(next(entry["value"] for entry in container["env"] if entry["name"] == CHART_VARIABLE))

    assert told() == StagerValues(), "the chart's defaults are not the models'"
    given = {"hosts": ["minio:9000"], "networks": ["10.0.0.0/8"], "ports": [8080], "http": False}
    limits = {"maxBytes": 2147483648, "giveUpSeconds": 0}
    values = {"enabled": False, "allow": given, "limits": limits, "parallel": 9, "tolerations": [{"key": "x"}]}
    retention = ("--set", "gateway.retention.artifactSeconds=10000000", "--set", "stager.inputSeconds=0")
    found = told("--set-json", f"stager={json.dumps(values)}", *retention)
    assert (found.upload_seconds, found.artifact_seconds, found.input_seconds) == (172800, 10_000_000, 0)
    assert found.allow.model_dump() == given
    assert (found.enabled, found.parallel, found.limits.max_bytes, found.limits.fetch_seconds) == (False, 9, 2**31, 600)
    assert found.tolerations == [{"key": "x"}]


def test_the_gateway_reads_the_charts_values_as_they_are_given() -> None:
    from kinora.gateway.settings import CHART_VARIABLE, GatewayValues, settings_from

    def told(*arguments: str) -> dict[str, str]:
        container = one("Deployment", "films-gateway", *arguments)["spec"]["template"]["spec"]["containers"][0]
        return {entry["name"]: entry.get("value", "kinora-system") for entry in container["env"]}

    assert settings_from(told()).values == GatewayValues(), "the chart's defaults are not the process's"
    values = {
        "publicURL": "https://videos.example/api",
        "dialects": ["openai"],
        "maxBodyBytes": 2147483648,
        "accountLimits": {"submitsPerMinute": 0.5, "uploadQuotaBytes": 21474836481},
        "retention": {"jobSeconds": 0},
        "live": {"enabled": False},
        "webhooks": {"shards": 3, "allow": {"hosts": ["hooks.apps.svc:8080"], "ports": [8080], "http": True}},
        "promptExtend": {"url": "https://llm.example/v1", "secretName": "llm", "model": "small"},
    }
    given = ("--set-json", f"gateway={json.dumps(values)}", "--set", "modelAliases.wan2\\.1-vace-plus=wan2.1-vace-14b")
    settings = settings_from(told(*given))
    found = settings.values
    assert (found.public_url, found.dialects, found.max_body_bytes) == ("https://videos.example/api", ["openai"], 2**31)
    assert (found.account_limits.submits_per_minute, found.account_limits.upload_quota_bytes) == (0.5, 21474836481)
    assert (found.account_limits.burst, found.retention.job_seconds, found.retention.link_seconds) == (60, 0, 86400)
    assert (found.webhooks.shards, found.webhooks.parallel, found.webhooks.enabled) == (3, 64, True)
    opened = {"hosts": ["hooks.apps.svc:8080"], "networks": [], "ports": [8080], "http": True}
    assert found.webhooks.allow.model_dump() == opened
    assert (found.prompt_extend.url, found.prompt_extend.key_file) == (
        "https://llm.example/v1",
        "/kinora/prompt-extend/key",
    )
    assert found.live.enabled is False
    assert settings.model_aliases == {"wan2.1-vace-plus": "wan2.1-vace-14b"}
    assert CHART_VARIABLE in told()


def test_the_gateway_reads_the_secret_of_keys_by_its_name_and_can_be_left_out() -> None:
    role = one("Role", "films-gateway", "--set", "gateway.keysSecret=clients")
    read = [rule for rule in role["rules"] if rule["resources"] == ["secrets"] and rule["verbs"] != ["create"]]
    assert [(rule["resourceNames"], rule["verbs"]) for rule in read] == [
        (["clients"], ["get", "list", "watch"]),
        (["kinora-gateway"], ["get", "list", "watch"]),
    ]
    assert not [found for found in objects("--set", "gateway.enabled=false") if "films-gateway" in str(found)]
    assert "gateway.ingress.host" in render("--set", "gateway.ingress.enabled=true").stderr


def test_the_watermark_reaches_the_agents_only_where_it_is_not_the_default() -> None:
    from kinora.api.agentconfig import Watermark

    def told(*arguments: str) -> str:
        containers = one("Deployment", "films-operator", *arguments)["spec"]["template"]["spec"]["containers"]
        return str(next(item.get("value", "") for item in containers[0]["env"] if item["name"] == "KINORA_WATERMARK"))

    assert told() == ""
    assert Watermark.model_validate_json(told("--set", "watermark.text=Made by machines")).text == "Made by machines"
    picture = Watermark.model_validate_json(told("--set", "watermark.image.name=logos,watermark.image.key=a.png"))
    assert picture.image is not None
    assert (picture.image.name, picture.image.key, picture.text) == ("logos", "a.png", "AI generated")
    assert render("--set", "watermark.text=\u5f71\u7247").returncode != 0


def test_crds_come_with_the_chart_and_stay_when_it_goes() -> None:
    for name in ("videojobs.kinora.dev", "modelservers.kinora.dev"):
        found = one("CustomResourceDefinition", name)
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert found["spec"] == yaml.safe_load((ROOT / f"crds/{name}.yaml").read_text(encoding="utf-8"))["spec"]
        gone = one("CustomResourceDefinition", name, "--set", "crds.keep=false")
        assert "annotations" not in gone["metadata"]
    kinds = {found["kind"] for found in objects("--set", "crds.enabled=false")}
    assert "CustomResourceDefinition" not in kinds


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "rbac.create=false,serviceAccount.create=false,serviceAccount.name=mine"),
        ("--set", "metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.a=b"),
        ("--set", "metrics.service=false"),
        ("--set-json", 'operator.extraEnv=[{"name":"A","value":"b"}]', "--set", "operator.podAnnotations.a=b"),
        (
            "--set-json",
            'operator={"nodeSelector":{"a":"b"},"tolerations":[{"key":"x"}],"affinity":{"nodeAffinity":{}}}',
        ),
        ("--set-json", 'operator.topologySpreadConstraints=[{"topologyKey":"topology.kubernetes.io/zone"}]'),
        (
            "--set",
            "operator.replicas=1,operator.updateStrategy.type=Recreate,operator.updateStrategy.rollingUpdate=null",
        ),
        ("--set", "image.digest=sha256:" + "0" * 64, "--set", "operator.priorityClassName=high"),
        ("--set-json", 'imagePullSecrets=[{"name":"registry"}]'),
    ],
)
def test_each_value_gives_objects_that_have_a_name_and_a_namespace(arguments: tuple[str, ...]) -> None:
    for found in objects(*arguments):
        assert found["metadata"]["name"]
        cluster_scoped = found["kind"] in CLUSTER_SCOPED or found["kind"] == "CustomResourceDefinition"
        assert ("namespace" in found["metadata"]) is not cluster_scoped, found["kind"]
        assert None not in found["metadata"].get("labels", {}).values()


def test_alerts_dashboard_and_pod_monitor_come_when_they_are_asked_for() -> None:
    plain = {(found["kind"], found["metadata"]["name"]) for found in objects()}
    asked = ("podMonitor", "prometheusRule", "dashboard")
    told = objects("--set", ",".join(f"metrics.{name}.enabled=true" for name in asked))
    new = {one["kind"]: one for one in told if (one["kind"], one["metadata"]["name"]) not in plain}
    assert new.keys() == {"PodMonitor", "PrometheusRule", "ConfigMap"}
    alerts = yaml.safe_load((ROOT / "docs/monitoring/alerts.yaml").read_text(encoding="utf-8"))
    assert new["PrometheusRule"]["spec"] == alerts, "templates in its texts are Prometheus' own"
    board = new["ConfigMap"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["kinora.json"])["title"] == "Kinora"
    chosen = new["PodMonitor"]["spec"]["selector"]["matchExpressions"][0]["values"]
    assert chosen == [COMPONENT_SERVER, COMPONENT_STAGER]


def test_an_older_kubernetes_is_refused() -> None:
    done = render("--kube-version", "1.31.9")
    assert done.returncode != 0
    assert "1.32" in done.stderr


# --- values


def leaves(values: Any, schema: Object, path: str = "") -> list[str]:
    """Paths of values that the schema does not name, and of objects that it leaves open though values fill them."""
    wrong = []
    for name, value in values.items():
        here = f"{path}.{name}".lstrip(".")
        known = schema.get("properties", {}).get(name)
        if known is None:
            wrong.append(here)
        elif isinstance(value, dict) and "properties" in known:
            wrong += leaves(value, known, here)
    if schema.get("additionalProperties") is not False:
        wrong.append(f"{path} is open")
    return wrong


def test_the_schema_names_every_value_and_no_other() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert leaves(values, schema) == []
    assert set(schema["properties"]) - set(values) == {"global"}, "helm itself sets global"


@pytest.mark.parametrize(
    "wrong",
    ["operatr.x=1", "operator.replicas=-1", "operator.updateStrategy.type=Never", "operator.podDisruptionBudget=2",
     "image.tga=1", "operator.resource=x", "metrics.port=0", "image.digest=latest", "rbac.create=maybe",
     "image.repository=", "image.pullPolicy=Sometimes", "metrics.serviceMonitor.enable=true",
     "stager.allow.port=1", "stager.limits.maxBytes=3000000000"],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_its_name(wrong: str) -> None:
    done = render("--set", wrong)
    assert done.returncode != 0
    assert wrong.partition("=")[0].split(".")[0] in done.stderr


def test_server_pods_are_held_to_the_same() -> None:
    """The pods that no template of the chart shows: those that the operator makes."""
    from kinora.controller.modelserver.pod import desired_pod, pools_of
    from kinora.controller.stager.desired import deployment
    from unit.controller.builders import SETTINGS, server

    spec = ModelServerSpec.model_validate(server()["spec"])
    made = desired_pod(server(), spec, SETTINGS, pool=pools_of(spec)[0], slot=0, incarnation=0)
    stager = deployment("films", claim_store("videos"), [server()], SETTINGS)["spec"]["template"]["spec"]
    assert stager["securityContext"]["runAsNonRoot"] is True
    assert stager["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*made["spec"]["initContainers"], *made["spec"]["containers"], *stager["containers"]]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
