"""spec.podTemplate: merged by name, and what makes a pod a server pod stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinora.api.modelserver import ModelServerSpec
from kinora.controller.modelserver.pod import desired_pod, pools_of
from kinora.controller.modelserver.template import Broken, faults, with_affinity
from unit.controller.builders import SETTINGS, server

Object = dict[str, Any]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def pod(template: Object | None, **change: Any) -> Object:
    obj = server(podTemplate=template, **change)
    spec = ModelServerSpec.model_validate(obj["spec"])
    return desired_pod(obj, spec, SETTINGS, pool=pools_of(spec)[0], slot=0, incarnation=0)


def with_spec(**spec: Any) -> Object:
    return pod({"spec": spec})


def container(body: Object, name: str) -> Object:
    every = [*body["spec"]["initContainers"], *body["spec"]["containers"]]
    return next(found for found in every if found["name"] == name)


def without_hash(body: Object) -> Object:
    del body["metadata"]["annotations"]["kinora.dev/template-hash"], body["metadata"]["name"]
    return body


# --- merging


@pytest.mark.parametrize("template", [{}, {"spec": {}}, {"metadata": {"labels": {}}}, {"spec": None, "metadata": None}])
def test_an_empty_template_changes_nothing(template: Object) -> None:
    assert without_hash(pod(template)) == without_hash(pod(None))


@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_the_engine_is_found_by_its_name_in_either_list(place: str) -> None:
    body = with_spec(**{place: [{"name": "engine", "env": [{"name": "A", "value": "1"}]}]})
    engine = container(body, "engine")
    assert [found["name"] for found in body["spec"]["containers"]] == ["agent"]
    assert engine["restartPolicy"] == "Always"
    assert {"name": "A", "value": "1"} in engine["env"]
    assert {"name": "HOME", "value": "/tmp"} in engine["env"]


def test_a_variable_of_the_same_name_is_replaced_whole() -> None:
    secret = {"valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    change = {"containers": [{"name": "engine", "env": [{"name": "TOKEN", **secret}]}]}
    body = pod({"spec": change}, engine={"env": [{"name": "TOKEN", "value": "plain"}]})
    assert [found for found in container(body, "engine")["env"] if found["name"] == "TOKEN"] == [
        {"name": "TOKEN", **secret}
    ]


def test_a_volume_of_the_same_name_is_replaced_whole_and_others_are_added() -> None:
    disk = {"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}
    body = with_spec(volumes=[{"name": "temp", **disk}, {"name": "cache", "emptyDir": {}}])
    volumes = {volume["name"]: volume for volume in body["spec"]["volumes"]}
    assert volumes["temp"] == {"name": "temp", **disk}
    assert volumes["cache"] == {"name": "cache", "emptyDir": {}}


def test_one_volume_may_be_mounted_at_several_paths() -> None:
    mounts = [{"name": "llm", "mountPath": f"/llm/{part}", "subPath": part} for part in ("models", "user")]
    body = with_spec(
        volumes=[{"name": "llm", "persistentVolumeClaim": {"claimName": "llm-model"}}],
        containers=[{"name": "engine", "volumeMounts": mounts}],
    )
    assert [mount for mount in container(body, "engine")["volumeMounts"] if mount["name"] == "llm"] == mounts


def test_resources_are_merged_and_claims_passed_through() -> None:
    body = pod(
        {
            "spec": {
                "resourceClaims": [{"name": "gpu", "resourceClaimName": "mine"}],
                "containers": [{"name": "engine", "resources": {"limits": {"cpu": 4}, "claims": [{"name": "gpu"}]}}],
            }
        },
        gpu={"count": 1},
    )
    assert body["spec"]["resourceClaims"] == [{"name": "gpu", "resourceClaimName": "mine"}]
    assert container(body, "engine")["resources"] == {
        "limits": {"nvidia.com/gpu": "1", "cpu": 4},
        "requests": {"nvidia.com/gpu": "1"},
        "claims": [{"name": "gpu"}],
    }


def test_tolerations_are_appended_and_maps_merged() -> None:
    mine = {"key": "films", "operator": "Exists"}
    pools = [{"name": "a", "nodeSelector": {"a": "1"}}]
    spec = {"tolerations": [mine], "nodeSelector": {"zone": "b"}, "securityContext": {"fsGroupChangePolicy": "Always"}}
    body = pod({"spec": spec}, gpu={"count": 1, "pools": pools})["spec"]
    assert [found["key"] for found in body["tolerations"]] == ["nvidia.com/gpu", "films"]
    assert body["nodeSelector"] == {"a": "1", "zone": "b"}
    assert body["securityContext"]["fsGroupChangePolicy"] == "Always"
    assert body["securityContext"]["runAsNonRoot"] is True


def test_init_containers_of_others_run_before_the_engine() -> None:
    body = with_spec(initContainers=[{"name": "warm", "image": "w"}, {"name": "sync", "image": "s"}])
    assert [found["name"] for found in body["spec"]["initContainers"]] == [
        "install-supervisor",
        "warm",
        "sync",
        "engine",
    ]


def test_containers_of_others_pass_the_restricted_standard_unless_they_say_otherwise() -> None:
    body = with_spec(containers=[{"name": "a", "image": "a"}, {"name": "b", "securityContext": {"runAsUser": 7}}])
    assert container(body, "a")["securityContext"]["allowPrivilegeEscalation"] is False
    assert container(body, "b")["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsUser": 7,
    }


def test_labels_of_the_template_win_over_the_pools_and_never_over_the_identity() -> None:
    pools = [{"name": "a", "labels": {"team": "pool", "kinora.dev/slot": "9"}}]
    metadata = {"labels": {"team": "films", "kinora.dev/modelserver": "stolen"}, "annotations": {"note": "x"}}
    made = pod({"metadata": metadata}, gpu={"count": 0, "pools": pools})["metadata"]
    assert made["labels"]["team"] == "films"
    assert (made["labels"]["kinora.dev/slot"], made["labels"]["kinora.dev/modelserver"]) == ("0", "vace")
    assert made["annotations"]["note"] == "x"


def term(key: str) -> Object:
    return {"matchExpressions": [{"key": key, "operator": "Exists"}]}


def test_an_affinity_of_ones_own_narrows_the_pools() -> None:
    pools = [{"name": "a", "provider": "eks", "capacity": "Spot", "gpuModel": "L40S"}]
    affinity = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [term("zone-a"), term("zone-b")]}}, "podAffinity": {}}
    body = pod({"spec": {"affinity": affinity}}, gpu={"count": 1, "pools": pools})["spec"]["affinity"]
    terms = [
        [rule["key"] for rule in found["matchExpressions"]]
        for found in body["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    ]
    assert len(terms) == 6, "each of three ways with each of two zones"
    assert ["karpenter.sh/capacity-type", "karpenter.k8s.aws/instance-gpu-name", "zone-b"] in terms
    assert body["podAffinity"] == {}


def test_preferences_are_appended_and_nothing_comes_from_nothing() -> None:
    assert with_affinity({}, {"podAntiAffinity": {"x": 1}}) == {"podAntiAffinity": {"x": 1}}
    one, two = {"weight": 1}, {"weight": 2}
    both = with_affinity({"nodeAffinity": {PREFERRED: [one]}}, {"nodeAffinity": {PREFERRED: [two]}})
    assert both == {"nodeAffinity": {PREFERRED: [one, two]}}
    fields = {"matchFields": [{"key": "metadata.name"}]}
    merged = with_affinity({}, {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [fields]}}})
    assert merged == {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [fields]}}}


# --- what may not be set


def one(template: Object, env_names: str | None = None) -> str:
    [found] = faults(template, env_names)
    return str(found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("serviceAccountName", "admin"),
        ("serviceAccount", "admin"),
        ("automountServiceAccountToken", True),
        ("shareProcessNamespace", True),
        ("hostNetwork", True),
        ("hostPID", True),
        ("hostIPC", True),
        ("hostUsers", False),
        ("hostAliases", []),
        ("hostname", "x"),
        ("restartPolicy", "Never"),
        ("terminationGracePeriodSeconds", 5),
        ("activeDeadlineSeconds", 5),
        ("enableServiceLinks", True),
        ("ephemeralContainers", []),
        ("nodeName", "n1"),
    ],
)
def test_fields_of_a_pod_that_cannot_be_set(field: str, value: object) -> None:
    assert one({"spec": {field: value}}).startswith(f"spec.podTemplate.spec.{field} is ")


@pytest.mark.parametrize("name", ["agent", "install-supervisor"])
@pytest.mark.parametrize("place", ["containers", "initContainers"])
def test_containers_that_are_kinoras(name: str, place: str) -> None:
    told = one({"spec": {place: [{"name": name, "image": "mine"}]}})
    assert told.startswith(f"spec.podTemplate.spec.{place}[0].name is {name}; allowed: engine, or")


@pytest.mark.parametrize(
    "field", ["image", "command", "args", "restartPolicy", "livenessProbe", "readinessProbe", "startupProbe"]
)
def test_fields_of_the_engine_that_cannot_be_set(field: str) -> None:
    assert f"containers[0].{field} is " in one({"spec": {"containers": [{"name": "engine", field: "x"}]}})
    assert list(faults({"spec": {"containers": [{"name": "other", field: "x"}]}})) == []


@pytest.mark.parametrize(
    "volume", ["artifacts", "artifacts-secret", "artifacts-ca", "store-token", "token", "agent-tmp", "claim-clips"]
)
def test_volumes_that_only_the_agent_mounts(volume: str) -> None:
    mounts = [{"name": volume, "mountPath": "/x"}]
    for name in ("engine", "other"):
        told = one({"spec": {"containers": [{"name": name, "volumeMounts": mounts}]}})
        assert f"containers[0].volumeMounts[0].name is {volume}" in told


def test_the_engines_folders_stay_where_they_are() -> None:
    for path in ("/models", "/tmp/", "/kinora/run"):
        mounts = [{"name": "x", "mountPath": path}]
        assert "mountPath" in one({"spec": {"containers": [{"name": "engine", "volumeMounts": mounts}]}})


@pytest.mark.parametrize("name", ["run", "models", "artifacts", "artifacts-secret", "store-token", "token", "claim-x"])
def test_volumes_that_stay_as_they_are(name: str) -> None:
    assert f"volumes[0].name is {name}" in one({"spec": {"volumes": [{"name": name, "emptyDir": {}}]}})


def test_volumes_of_kinds_that_no_server_pod_has() -> None:
    assert "volumes[0].hostPath" in one({"spec": {"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}})
    token = {"name": "t", "projected": {"sources": [{"configMap": {}}, {"serviceAccountToken": {"path": "t"}}]}}
    assert "volumes[0].projected.sources[1].serviceAccountToken" in one({"spec": {"volumes": [token]}})


def test_names_of_variables_by_the_providers_rule() -> None:
    template = {"spec": {"containers": [{"name": "engine", "env": [{"name": "a/b", "value": ""}]}]}}
    assert "env[0].name is a/b" in one(template, "[A-Za-z_.-][A-Za-z0-9_.-]*")
    assert list(faults(template)) == []


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ({"kind": "Pod"}, "spec.podTemplate.kind"),
        ({"metadata": {"name": "x"}}, "spec.podTemplate.metadata.name"),
        ({"metadata": {"labels": {"kinora.dev/pool": "x"}}}, "spec.podTemplate.metadata.labels.kinora.dev/pool"),
        ({"metadata": {"labels": {"app.kubernetes.io/component": "x"}}}, "labels.app.kubernetes.io/component"),
    ],
)
def test_what_a_template_has_no_place_for(template: Object, place: str) -> None:
    assert place in one(template)


@pytest.mark.parametrize(
    "template",
    [
        {"metadata": ["x"]},
        {"metadata": {"labels": {"a": 1}}},
        {"spec": "x"},
        {"spec": {"containers": {}}},
        {"spec": {"containers": ["engine"]}},
        {"spec": {"containers": [{"image": "x"}]}},
        {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}},
        {"spec": {"volumes": [{"emptyDir": {}}]}},
        {"spec": {"resourceClaims": [{}]}},
        {"spec": {"containers": [{"name": "a", "env": [{}]}]}},
        {"spec": {"containers": [{"name": "a", "resources": 5}]}},
        {"spec": {"containers": [{"name": "engine", "resources": {"claims": [{}]}}]}},
        {"spec": {"affinity": "here"}},
        {"spec": {"affinity": {"nodeAffinity": "here"}}},
        {"spec": {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": ["x"]}}}}},
        {"spec": {"affinity": {"nodeAffinity": {REQUIRED: ["x"]}}}},
    ],
)
def test_a_template_that_cannot_be_read_is_refused_and_not_tripped_over(template: Object) -> None:
    found = list(faults(template))
    assert len(found) == 1
    assert isinstance(found[0], Broken)


WORDS = """
metadata labels annotations spec containers initContainers volumes env volumeMounts ports resources requests limits
claims name mountPath containerPort affinity nodeAffinity podAffinity requiredDuringSchedulingIgnoredDuringExecution
preferredDuringSchedulingIgnoredDuringExecution nodeSelectorTerms matchExpressions tolerations nodeSelector
schedulingGates securityContext projected sources emptyDir imagePullSecrets resourceClaims topologySpreadConstraints
readinessGates conditionType
"""
FIELDS = st.sampled_from(WORDS.split())
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-1, 2), st.sampled_from(["", "a", "engine", "temp", "other"]))
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(FIELDS, inner, max_size=4)),
    max_leaves=20,
)
TEMPLATES = st.fixed_dictionaries(
    {},
    optional={
        "metadata": ANYTHING,
        "spec": st.one_of(
            ANYTHING,
            st.dictionaries(
                FIELDS,
                st.lists(st.dictionaries(FIELDS, ANYTHING, max_size=4) | ANYTHING, max_size=2) | ANYTHING,
                max_size=4,
            ),
        ),
    },
)


@given(TEMPLATES)
def test_whatever_is_written_it_is_refused_or_merged(template: Object) -> None:
    """Nothing that a CRD's free form lets through may end the operator's pass."""
    if not list(faults(template)):
        body = pod(template)
        assert [found["name"] for found in body["spec"]["containers"]][:1] == ["agent"]
        assert body["spec"]["serviceAccountName"] == "kinora-agent"
