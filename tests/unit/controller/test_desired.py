"""The children that a ModelServer wants: hardened, deterministic, and blind to the operator's own version."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kinora.api.agentconfig import CONFIG_VARIABLE, AgentConfig
from kinora.api.modelserver import ModelServerSpec
from kinora.api.names import stager_name
from kinora.api.s3store import S3Store
from kinora.api.stagerconfig import StagerValues
from kinora.controller.modelserver import desired
from kinora.controller.modelserver.pod import desired_pod, pools_of, template_hash
from kinora.controller.settings import Settings
from unit.controller.builders import SETTINGS, server

Object = dict[str, Any]


def spec(**change: Any) -> ModelServerSpec:
    return ModelServerSpec.model_validate(server(**change)["spec"])


def pod(slot: int = 0, settings: Settings = SETTINGS, **change: Any) -> Object:
    wanted = spec(**change)
    return desired_pod(server(**change), wanted, settings, pool=pools_of(wanted)[0], slot=slot, incarnation=0)


def containers(body: Object) -> list[Object]:
    return [*body["spec"]["initContainers"], *body["spec"]["containers"]]


def container(body: Object, name: str) -> Object:
    return next(found for found in containers(body) if found["name"] == name)


def test_every_container_is_restricted() -> None:
    body = pod()
    assert [found["name"] for found in containers(body)] == ["install-supervisor", "engine", "agent"]
    for found in containers(body):
        context = found["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] > 0
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for forbidden in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
        assert forbidden not in body["spec"]
    assert body["spec"]["enableServiceLinks"] is False


def test_engine_and_agent_have_different_users_and_one_group() -> None:
    body = pod()
    engine, agent = (container(body, name)["securityContext"] for name in ("engine", "agent"))
    assert engine["runAsUser"] != agent["runAsUser"]
    assert engine["runAsGroup"] == agent["runAsGroup"] == body["spec"]["securityContext"]["fsGroup"]


def test_the_token_and_the_artifacts_are_the_agents_alone() -> None:
    body = pod(inputClaims=[{"name": "in", "claimName": "clips"}])
    assert body["spec"]["automountServiceAccountToken"] is False
    mounted = {found["name"]: {mount["name"] for mount in found["volumeMounts"]} for found in containers(body)}
    for private in ("token", "artifacts", "claim-in", "agent-tmp"):
        assert [name for name, mounts in mounted.items() if private in mounts] == ["agent"]
    volumes = {volume["name"]: volume for volume in body["spec"]["volumes"]}
    assert mounted["engine"] | mounted["agent"] <= set(volumes)
    assert volumes["token"]["projected"]["sources"][0]["serviceAccountToken"]["path"] == "token"


BUCKET: Object = {
    "bucket": "films", "prefix": "a", "endpoint": "https://minio:9000", "secretName": "films-bucket",
    "caConfigMap": {"name": "trust", "key": "ca.crt"},
}  # fmt: skip
WITHOUT_STAGERS = replace(SETTINGS, stager=StagerValues(enabled=False))


def of_store(body: Object) -> tuple[dict[str, Object], dict[str, set[str]], AgentConfig]:
    """The pod's volumes of a store, which of them each container mounts, and what its agent is told."""
    volumes = {volume["name"]: volume for volume in body["spec"]["volumes"]}
    found = {name: volume for name, volume in volumes.items() if name.startswith(("artifacts", "store"))}
    mounted = {one["name"]: {mount["name"] for mount in one["volumeMounts"]} & set(found) for one in containers(body)}
    told = next(entry["value"] for entry in container(body, "agent")["env"] if entry["name"] == CONFIG_VARIABLE)
    return found, mounted, AgentConfig.model_validate_json(told)


def test_an_agent_of_a_bucket_has_a_token_of_its_own_pod_and_no_keys() -> None:
    body = pod(artifacts={"s3": BUCKET})
    volumes, mounted, config = of_store(body)
    assert set(volumes) == {"artifacts-ca", "store-token"}
    assert mounted == {"install-supervisor": set(), "engine": set(), "agent": set(volumes)}
    [source] = volumes["store-token"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "kinora.dev/store", "the API server takes no such token"
    assert source["serviceAccountToken"]["expirationSeconds"] <= 3607
    assert volumes["artifacts-ca"]["configMap"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
    assert config.artifact_s3 == S3Store.model_validate(BUCKET)
    assert config.artifact_broker == f"http://{stager_name('s3://films/a/')}.films.svc:8783"
    mount = next(one for one in container(body, "agent")["volumeMounts"] if one["name"] == "store-token")
    assert mount == {"name": "store-token", "mountPath": "/kinora/store/token", "readOnly": True}
    assert "films-bucket" not in json.dumps(body["spec"]["volumes"])


@pytest.mark.parametrize(
    ("settings", "more"),
    [(SETTINGS, {"access": "Secret"}), (WITHOUT_STAGERS, {}), (WITHOUT_STAGERS, {"access": "Secret"})],
    ids=["asked for", "no stagers", "both"],
)
def test_keys_of_a_bucket_are_files_of_the_agents_container_alone(settings: Settings, more: Object) -> None:
    body = pod(artifacts={"s3": {**BUCKET, **more}}, settings=settings)
    volumes, mounted, config = of_store(body)
    assert set(volumes) == {"artifacts-secret", "artifacts-ca"}
    assert volumes["artifacts-secret"]["secret"] == {"secretName": "films-bucket", "defaultMode": 0o440}
    assert mounted == {"install-supervisor": set(), "engine": set(), "agent": set(volumes)}
    assert (config.artifact_claim, config.artifact_broker) == ("", "")
    for found in containers(body):
        assert "films-bucket" not in json.dumps(found.get("env") or []) or found["name"] == "agent"


def test_a_bucket_without_keys_and_a_claim_need_no_broker() -> None:
    for artifacts, expected in (({"s3": {"bucket": "films"}}, set()), ({"claimName": "videos"}, {"artifacts"})):
        volumes, _, config = of_store(pod(artifacts=artifacts))
        assert (set(volumes), config.artifact_broker) == (expected, "")


def test_how_agents_reach_a_bucket_rolls_pods_when_somebody_changes_it_and_not_at_an_upgrade() -> None:
    def hashed(settings: Settings = SETTINGS, **s3: Any) -> str:
        wanted = spec(artifacts={"s3": {**BUCKET, **s3}})
        return template_hash(server(artifacts={"s3": {**BUCKET, **s3}}), wanted, settings, pools_of(wanted)[0])

    assert hashed() == "cfbcfe37", "pods of before brokers have the Secret mounted, and stay"
    assert hashed(access="Broker") == hashed()
    assert hashed(access="Secret") != hashed()
    assert hashed(WITHOUT_STAGERS) != hashed(), "nobody would sign for the pods that there are"
    assert hashed(WITHOUT_STAGERS, access="Secret") == hashed(access="Secret")


def test_volumes_that_are_only_read_are_mounted_read_only() -> None:
    body = pod(inputClaims=[{"name": "in", "claimName": "clips"}])
    for name in ("engine", "agent"):
        mounts = {mount["name"]: mount for mount in container(body, name)["volumeMounts"]}
        assert mounts["models"]["readOnly"] is True
    mounts = {mount["name"]: mount for mount in container(body, "agent")["volumeMounts"]}
    assert mounts["claim-in"] == {"name": "claim-in", "mountPath": "/kinora/claims/in", "readOnly": True}
    assert mounts["token"]["readOnly"] is True


def test_the_engine_is_a_native_sidecar_under_the_supervisor_on_loopback() -> None:
    engine = container(pod(engine={"args": ["--lowvram"]}), "engine")
    assert engine["restartPolicy"] == "Always"
    command = engine["command"]
    assert command[:4] == ["python3", "/kinora/run/supervisor.py", "--socket", "/kinora/run/supervisor.sock"]
    assert command[command.index("--listen") + 1] == "127.0.0.1"
    assert command[-1] == "--lowvram"


def test_drain_and_readiness() -> None:
    body = pod(drainSeconds=100)
    assert body["spec"]["terminationGracePeriodSeconds"] == 160
    assert body["spec"]["readinessGates"] == [{"conditionType": "kinora.dev/EngineReady"}]
    assert body["spec"]["restartPolicy"] == "Always"


@pytest.mark.parametrize(
    ("gpu", "name", "count"),
    [
        ({"count": 2}, "nvidia.com/gpu", "2"),
        ({"count": 1, "pools": [{"name": "a", "resourceName": "aliyun.com/ppu"}]}, "aliyun.com/ppu", "1"),
    ],
)
def test_gpus_are_asked_of_the_engine_alone(gpu: Object, name: str, count: str) -> None:
    body = pod(gpu=gpu)
    resources = container(body, "engine")["resources"]
    assert resources["limits"][name] == resources["requests"][name] == count
    assert name not in str(container(body, "agent")["resources"])
    assert container(pod(gpu={"count": 0}), "engine")["resources"] == {}


def test_a_pool_shapes_the_pod_but_does_not_take_its_identity() -> None:
    pool = {
        "name": "spot",
        "labels": {"team": "a", "kinora.dev/modelserver": "stolen", "kinora.dev/slot": "9"},
        "annotations": {"note": "x", "kinora.dev/template-hash": "stolen"},
        "nodeSelector": {"gpu": "h20"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "runtimeClassName": "nvidia",
        "resources": {"requests": {"memory": "8Gi"}},
    }
    body = pod(slot=1, gpu={"count": 1, "pools": [pool]})
    labels, annotations = body["metadata"]["labels"], body["metadata"]["annotations"]
    assert labels["team"] == "a"
    assert labels["kinora.dev/modelserver"] == "vace"
    assert labels["kinora.dev/slot"] == "1"
    assert annotations["note"] == "x"
    assert annotations["kinora.dev/template-hash"] != "stolen"
    assert body["spec"]["nodeSelector"] == {"gpu": "h20"}
    assert {"key": "spot", "operator": "Exists"} in body["spec"]["tolerations"]
    assert body["spec"]["runtimeClassName"] == "nvidia"
    assert container(body, "engine")["resources"]["requests"] == {"memory": "8Gi", "nvidia.com/gpu": "1"}


@pytest.mark.parametrize("mark", ["", '{"text": "Made by machines"}'])
def test_the_agent_is_told_of_a_watermark_that_is_not_the_default(mark: str) -> None:
    body = pod(settings=replace(SETTINGS, watermark=mark))
    env = {variable["name"]: variable for variable in container(body, "agent")["env"]}
    assert env.get("KINORA_WATERMARK", {}).get("value", "") == mark
    assert ("KINORA_WATERMARK" in env) is bool(mark)


def test_the_agent_is_told_what_the_spec_says() -> None:
    body = pod(drainSeconds=7, inputClaims=[{"name": "in", "claimName": "clips"}], allowedNodeClasses=["KSampler"])
    env = {variable["name"]: variable for variable in container(body, "agent")["env"]}
    config = json.loads(env["KINORA_AGENT_CONFIG"]["value"])
    assert config["modelServerName"] == "vace"
    assert config["drainSeconds"] == 7
    assert config["inputClaims"] == ["in"]
    assert config["allowedNodeClasses"] == ["KSampler"]
    assert env["KINORA_POD_UID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"


# --- the template hash


def digest(image: str = "standin:1", **change: Any) -> str:
    return hash_of(spec(**change), image)


def hash_of(wanted: ModelServerSpec, image: str = "standin:1") -> str:
    return template_hash(server(), wanted, Settings("kinora:1", image), pools_of(wanted)[0])


@pytest.mark.parametrize("change", [{"replicas": 7}, {"update": {"maxUnavailable": 3}}])
def test_what_does_not_shape_a_pod_does_not_change_its_hash(change: Object) -> None:
    assert digest(**change) == digest()


def test_a_default_that_is_spelled_out_is_the_same_template() -> None:
    assert digest(drainSeconds=1800, warmup=False, inputClaims=[]) == digest()
    assert digest(gpu={"count": 0, "pools": []}) == digest()


@pytest.mark.parametrize(
    "change",
    [
        {"drainSeconds": 5},
        {"engine": {"args": ["--x"]}},
        {"engine": {"env": [{"name": "A", "value": "1"}]}},
        {"gpu": {"count": 1}},
        {"weights": {"claimName": "other"}},
        {"weights": {"claimName": "weights", "verify": "Hash"}},
        {"inputClaims": [{"name": "a", "claimName": "b"}]},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"shmSize": "1Gi"},
        {"allowedNodeClasses": ["KSampler"]},
        {"artifacts": {"claimName": "elsewhere"}},
    ],
)
def test_what_shapes_a_pod_changes_its_hash(change: Object) -> None:
    assert digest(**change) != digest()


class LaterSpec(ModelServerSpec):
    """As a later version may have it."""

    preload: bool = True


def test_a_field_that_a_later_version_adds_rolls_no_pod_that_does_not_set_it() -> None:
    later = LaterSpec.model_validate(server()["spec"])
    assert hash_of(later) == digest()
    assert hash_of(later.model_copy(update={"preload": False})) != digest()


def test_a_new_operator_rolls_no_pod_and_a_new_engine_does() -> None:
    hashes = {
        pod(settings=settings)["metadata"]["annotations"]["kinora.dev/template-hash"]
        for settings in (
            SETTINGS,
            Settings(agent_image="kinora:2", engine_image="standin:1", image_pull_policy="Always"),
        )
    }
    assert len(hashes) == 1
    assert digest("standin:2") != digest("standin:1")


# --- the other children


def test_children_have_the_server_as_owner_but_for_the_shared_ones_and_the_weights() -> None:
    template = {"claimTemplate": {"storage": "10Gi", "storageClassName": "fast"}}
    claim = desired.claim(server(weights=template), spec(weights=template))
    assert claim is not None
    for child in (pod(), desired.service(server())):
        owner = child["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["controller"], owner["blockOwnerDeletion"]) == ("ModelServer", True, False)
    assert claim["metadata"]["name"] == "vace-weights"
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "10Gi"}},
        "storageClassName": "fast",
    }
    assert desired.claim(server(), spec()) is None
    for shared in (desired.service_account("films"), desired.role_binding("films"), claim):
        assert "ownerReferences" not in shared["metadata"]
    assert desired.role_binding("films")["roleRef"]["name"] == "kinora-agent"
    assert desired.service_account("films")["automountServiceAccountToken"] is False


def test_the_service_is_headless_and_finds_pods_that_are_not_ready() -> None:
    body = desired.service(server())["spec"]
    assert body["clusterIP"] == "None"
    assert body["publishNotReadyAddresses"] is True
    assert body["selector"] == {"kinora.dev/modelserver": "vace"}
