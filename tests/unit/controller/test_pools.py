"""Providers as data: what a pool asks of a pod, which GPU can run which model, and golden manifests of every pool."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from kinora.api.intake import claim_store
from kinora.api.modelserver import Capacity, ModelServerSpec, Pool, Provider
from kinora.api.stagerconfig import StagerValues
from kinora.catalogue.model import GpuNeeds
from kinora.controller.modelserver import desired
from kinora.controller.modelserver.pod import desired_pod, pools_of, template_hash
from kinora.controller.pools import fit
from kinora.controller.pools.load import ProviderError, Providers, load_providers, parse_provider
from kinora.controller.pools.model import Provider as ProviderData
from kinora.controller.pools.shape import Shape, provider_of, shape_of
from kinora.controller.settings import Settings
from kinora.controller.stager.desired import deployment
from unit.controller.builders import SETTINGS, catalogue, server
from unit.controller.pool_cases import CARDS, CASES, CPU_CASES, GOLDEN, pod_of, render

Object = dict[str, Any]
PROVIDERS = load_providers()
NEEDS = GpuNeeds(memoryGiB=24, compute_capability="8.9")


def shape(provider: str, capacity: str = "OnDemand", gpus: int = 1, **fields: Any) -> Shape:
    pool = Pool.model_validate({"name": "a", "provider": provider, "capacity": capacity, **fields})
    return shape_of(PROVIDERS[pool.provider], pool, gpus=gpus)


def faults(provider: str = "generic", gpus: int = 1, needs: GpuNeeds = NEEDS, **fields: Any) -> list[str]:
    pool = Pool.model_validate({"name": "a", "provider": provider, **fields})
    found = fit.faults(PROVIDERS[pool.provider], pool, needs, "wan", gpus=gpus, path="spec.gpu.pools[0]")
    return [str(fault) for fault in found]


# --- the golden manifests


def test_every_provider_and_capacity_has_its_golden_pod_and_there_are_no_others() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == {*CASES, *CPU_CASES}
    assert {f"{provider}-{capacity.lower()}" for provider in Provider for capacity in Capacity} <= set(CASES)


@pytest.mark.parametrize("case", [*CASES, *CPU_CASES])
def test_a_pod_is_its_golden_one(case: str) -> None:
    """Mended by PYTHONPATH=tests python -m unit.controller.pool_cases, once the difference has been read.

    The hash is part of it: a change here, with the same data, rolls every pod of that pool when an operator is
    upgraded.
    """
    assert render(case) == (GOLDEN / f"{case}.yaml").read_text(encoding="utf-8")


def test_an_operator_of_another_version_rolls_no_pod() -> None:
    """Other images of its own, other pull rules: the hashes are those of the golden files."""
    later = Settings("kinora:2", "standin:1", image_pull_policy="Always", image_pull_secrets=("new",))
    for case in CASES:
        obj = server(**CASES[case])
        spec = ModelServerSpec.model_validate(obj["spec"])
        golden = yaml.safe_load((GOLDEN / f"{case}.yaml").read_text(encoding="utf-8"))
        assert template_hash(obj, spec, later, pools_of(spec)[0]) == hash_in(golden)


# Whoever changes one of these rolls every pod of such a pool when an operator is upgraded: say so in the release.
HASHES = {
    "acs-spot": "0824f075",
    "ack-spot": "67eb143c",
    "gke-spot": "fbd22cdc",
    "eks-spot": "72094574",
    "aks-spot": "b6c9be11",
    "generic-spot": "35915adb",
    "acs-template": "a2e5b983",
}


@pytest.mark.parametrize("case", HASHES)
def test_an_upgrade_with_the_same_data_rolls_nothing(case: str) -> None:
    assert hash_in(pod_of(case)) == HASHES[case]


def hash_in(pod: Object) -> str:
    return str(pod["metadata"]["annotations"]["kinora.dev/template-hash"])


# --- shapes


def test_labels_that_acs_rewrites_are_in_no_selector() -> None:
    rewritten = {f"alibabacloud.com/{name}" for name in ("compute-class", "compute-qos", "cpu-vendor")}
    for case in (name for name in CASES if name.startswith("acs")):
        body = pod_of(case)
        assert rewritten & set(body["metadata"]["labels"]), "they are on the pod"
        assert not any(label in str(body["spec"]) for label in rewritten)
    assert not any(label in str(desired.service(server())) + desired.selector(server()) for label in rewritten)


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("acs")])
def test_acs_wants_equal_requests_and_disk_in_every_container(case: str) -> None:
    body = pod_of(case)["spec"]
    for container in [*body["initContainers"], *body["containers"]]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["limits"])
    assert body["enableServiceLinks"] is False
    assert "hostPath" not in str(body)
    assert "hostNetwork" not in body


def template_of(case: str) -> Object:
    template: Object = CPU_CASES[case]()["spec"]["template"]
    return template


@pytest.mark.parametrize("case", ["acs-weights", "acs-stager"])
def test_pods_without_a_gpu_follow_the_rules_of_acs_too(case: str) -> None:
    template = template_of(case)
    assert template["metadata"]["labels"]["alibabacloud.com/compute-class"] == "general-purpose"
    assert template["metadata"]["labels"]["alibabacloud.com/acs"] == "true"
    assert {"key": "virtual-kubelet.io/provider", "operator": "Exists", "effect": "NoSchedule"} in (
        template["spec"]["tolerations"]
    )
    assert template["spec"]["enableServiceLinks"] is False
    (container,) = template["spec"]["containers"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory", "ephemeral-storage"} == set(resources["limits"])
    selector = CPU_CASES[case]()["spec"].get("selector", {})
    assert "alibabacloud.com" not in str(selector), "the provider rewrites its labels"


@pytest.mark.parametrize("case", CPU_CASES)
def test_pods_without_a_gpu_ask_for_none_and_choose_no_gpu_node(case: str) -> None:
    template = template_of(case)
    assert not {"affinity", "nodeSelector"} & template["spec"].keys()
    (container,) = template["spec"]["containers"]
    told = [template["metadata"], template["spec"].get("tolerations"), container["resources"]]
    assert not re.search(r"gpu|spot|best-effort|accelerator", str(told).lower())


def test_the_provider_of_a_namespace_is_the_first_that_is_named() -> None:
    assert provider_of([]) == provider_of([{"name": "a"}, {"provider": "nobody"}]) == "generic"
    assert provider_of([{"name": "own"}, {"provider": "acs"}, {"provider": "ack"}]) == "acs"
    assert provider_of([Pool(name="a"), Pool(name="b", provider=Provider.GKE)]) == "gke"


def test_what_the_chart_says_of_stagers_goes_before_what_a_provider_says() -> None:
    values = StagerValues(
        resources={"limits": {"cpu": "4"}}, node_selector={"disk": "fast"}, tolerations=[{"operator": "Exists"}]
    )
    server_of_acs = server(**CASES["acs-spot"])
    made = deployment("films", claim_store("videos"), [server_of_acs], replace(SETTINGS, stager=values))["spec"][
        "template"
    ]["spec"]
    assert made["containers"][0]["resources"]["requests"] == {
        "cpu": "4", "memory": "2Gi", "ephemeral-storage": "10Gi"}  # fmt: skip
    assert made["nodeSelector"] == {"disk": "fast"}
    assert made["tolerations"][-1] == {"operator": "Exists"}


def test_acs_names_the_card_by_a_label_and_where_it_is_reserved_by_a_node_selector() -> None:
    key = "alibabacloud.com/gpu-model-series"
    spot, reserved = shape("acs", "Spot", gpuModel="H20"), shape("acs", "Reserved", gpuModel="H20")
    assert (spot.labels[key], key in spot.node_selector) == ("H20", False)
    assert (key in reserved.labels, reserved.node_selector[key]) == (False, "H20")
    assert spot.labels["alibabacloud.com/compute-qos"] == "best-effort"
    assert reserved.labels["alibabacloud.com/compute-class"] == "gpu-hpn"


def test_a_pool_without_gpus_asks_for_no_card_and_no_gpu_class() -> None:
    assert shape("acs", gpus=0).labels["alibabacloud.com/compute-class"] == "general-purpose"
    for provider in Provider:
        assert not [entry for entry in shape(provider, gpus=0).tolerations if entry.get("key") == "nvidia.com/gpu"]


def test_a_card_that_comes_by_a_claim_places_the_pod_all_the_same() -> None:
    assert shape("gke", gpus=0, gpuModel="L4", capacity="Spot").node_selector == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "cloud.google.com/gke-spot": "true",
    }


def test_ways_of_making_nodes_are_alternatives_and_each_names_the_card() -> None:
    for capacity in Capacity:
        for card in PROVIDERS[Provider.EKS].gpu.cards:
            terms = shape("eks", capacity, gpuModel=card.name).terms
            assert len(terms) == 3
            for term in terms:
                assert len(term) == 2, "the capacity and the card"
    assert len(shape("eks", "Spot").terms) == 2, "without a card two ways have the same word for spot"


def test_the_pools_own_fields_come_last() -> None:
    mine = shape(
        "gke",
        "Spot",
        gpuModel="L4",
        labels={"team": "films"},
        annotations={"a": "b"},
        nodeSelector={"cloud.google.com/gke-spot": "maybe"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}, {"key": "x"}],
        resourceName="nvidia.com/mig-1g.10gb",
    )
    assert (mine.labels, mine.annotations) == ({"team": "films"}, {"a": "b"})
    assert mine.node_selector["cloud.google.com/gke-spot"] == "maybe"
    assert [entry["key"] for entry in mine.tolerations] == ["nvidia.com/gpu", "cloud.google.com/gke-spot", "x"]
    assert mine.resource_name == "nvidia.com/mig-1g.10gb"


def test_only_spot_capacity_tolerates_spot_nodes_and_other_capacity_keeps_away_from_them() -> None:
    marks = {"gke": "gke-spot", "aks": "scalesetpriority"}
    for provider, mark in marks.items():
        for capacity in Capacity:
            tolerated = mark in str(shape(provider, capacity).tolerations)
            assert tolerated is (capacity is Capacity.SPOT)
    for provider in ("gke", "ack"):
        assert "NotIn" in str(shape(provider, "OnDemand").terms)


# --- which GPU runs which model


def test_a_card_that_is_too_small_or_too_old_is_refused_with_pool_value_and_what_would_do() -> None:
    [old] = faults(gpuModel="A10")
    for words in ("spec.gpu.pools[0].gpuModel is A10;", "pool a", "8.6", "wan needs 24 GiB", "L20, ", "H200"):
        assert words in old
    assert "A100" not in old.partition("(")[0], "8.0 has no FP8 arithmetic either"
    [small] = faults(needs=GpuNeeds(memoryGiB=48, compute_capability="8.0"), gpuModel="L4")
    assert "24 GiB" in small
    assert faults(gpuModel="L4") == []


def test_ten_is_more_than_nine() -> None:
    assert faults(gpuModel="B200") == []


def test_a_card_nobody_knows_is_refused_with_the_known_ones() -> None:
    [unknown] = faults("gke", gpuModel="H20")
    assert "gpuModel is H20; allowed: L4, " in unknown
    assert "nodeSelector" in unknown


def test_a_card_of_which_no_capability_is_published_is_measured_by_its_memory_alone() -> None:
    assert faults("acs", gpuModel="GU8TF") == []
    assert faults("acs", gpuModel="GU8TF", needs=GpuNeeds(memoryGiB=97, compute_capability="8.0"))


def test_acs_must_be_told_the_card_and_others_need_not() -> None:
    [missing] = faults("acs")
    assert "spec.gpu.pools[0].gpuModel is not set" in missing
    assert faults("acs", gpus=0) == []
    for provider in ("ack", "gke", "eks", "aks", "generic"):
        assert faults(provider) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"resourceName": "nvidia.com/mig-3g.20gb"}, ["resourceName is nvidia.com/mig-3g.20gb", "24gb"]),
        ({"resourceName": "nvidia.com/mig-1g.10gb.me"}, ["mig-1g.10gb.me"]),
        ({"resourceName": "aliyun.com/gpu-mem"}, ["resources.limits.aliyun.com/gpu-mem is not set", "at least 24"]),
        (
            {"resourceName": "aliyun.com/gpu-mem", "resources": {"limits": {"aliyun.com/gpu-mem": 8}}},
            ["aliyun.com/gpu-mem is 8", "at least 24"],
        ),
    ],
)
def test_a_part_of_a_card_must_hold_the_model(fields: Object, words: list[str]) -> None:
    [found] = faults(**fields)
    for word in words:
        assert word in found


def test_parts_that_are_large_enough() -> None:
    assert faults(resourceName="nvidia.com/mig-4g.40gb") == []
    assert faults(resourceName="aliyun.com/gpu-mem", resources={"limits": {"aliyun.com/gpu-mem": "24"}}) == []


def test_every_model_of_the_catalogue_has_a_card_at_every_provider() -> None:
    for model in catalogue():
        for provider in PROVIDERS:
            assert [card for card in provider.gpu.cards if fit.fits(card, model.gpu)], (model.name, provider.name)
    for provider, card in CARDS.items():
        assert PROVIDERS[Provider(provider)].gpu.card(card) is not None


# --- the hash of a template


def digest(image: str = "standin:1", labels: Object | None = None, **change: Any) -> str:
    obj = server(**change)
    obj["metadata"]["labels"] = labels or {}
    spec = ModelServerSpec.model_validate(obj["spec"])
    return template_hash(obj, spec, Settings("kinora:1", image), pools_of(spec)[0])


def pooled(*others: Object, **change: Any) -> str:
    return digest(gpu={"count": 0, "pools": [{"name": "a", **change}, *others]})


@pytest.mark.parametrize("change", [{"maxReplicas": 3}, {"pricePerHour": 2.5}, {"capacity": "OnDemand"}])
def test_what_shapes_no_pod_of_the_pool_does_not_change_its_hash(change: Object) -> None:
    assert pooled(**change) == pooled()


def test_another_pool_to_fall_back_to_rolls_no_pod() -> None:
    assert pooled({"name": "b", "provider": "gke"}) == pooled()


def test_a_pod_of_any_pool_of_the_list() -> None:
    pools = [{"name": "a", "provider": "acs", "gpuModel": "H20"}, {"name": "b", "provider": "gke", "gpuModel": "L4"}]
    obj = server(gpu={"count": 1, "pools": pools})
    spec = ModelServerSpec.model_validate(obj["spec"])
    first, second = (desired_pod(obj, spec, SETTINGS, pool=pool, slot=0, incarnation=0) for pool in pools_of(spec))
    assert [made["metadata"]["labels"]["kinora.dev/pool"] for made in (first, second)] == ["a", "b"]
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert hash_in(first) != hash_in(second)
    assert "alibabacloud.com/compute-class" not in second["metadata"]["labels"]


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"x": "y"}},
        {"gpuModel": "H20"},
        {"provider": "gke"},
        {"runtimeClassName": "nvidia"},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"tolerations": [{"key": "x", "operator": "Exists"}]},
    ],
)
def test_what_shapes_the_pods_of_the_pool_changes_their_hash(change: Object) -> None:
    assert pooled(**change) != pooled()


def test_the_providers_data_that_is_used_is_in_the_hash_and_what_is_not_used_is_not() -> None:
    gke = PROVIDERS[Provider.GKE]
    spec = ModelServerSpec.model_validate(
        server(gpu={"count": 1, "pools": [{"name": "a", "provider": "gke", "gpuModel": "L4"}]})["spec"]
    )

    def with_gke(changed: ProviderData) -> str:
        others = [provider for provider in PROVIDERS if provider.name is not Provider.GKE]
        settings = Settings("kinora:1", "standin:1", providers=Providers([*others, changed]))
        return template_hash(server(), spec, settings, spec.gpu.pools[0])

    spot = gke.capacities | {Capacity.SPOT: gke.capacities[Capacity.ON_DEMAND]}
    assert with_gke(gke.model_copy(update={"capacities": spot, "sources": ("elsewhere",)})) == with_gke(gke)
    marked = gke.gpu.model_copy(update={"marks": gke.gpu.marks.model_copy(update={"labels": {"new": "one"}})})
    assert with_gke(gke.model_copy(update={"gpu": marked})) != with_gke(gke)


def test_a_queues_label_is_taken_over_by_the_pods_and_others_are_not() -> None:
    labels = {"kueue.x-k8s.io/queue-name": "gpus", "app.kubernetes.io/instance": "argo"}
    obj = server()
    obj["metadata"]["labels"] = labels
    spec = ModelServerSpec.model_validate(obj["spec"])
    made = desired_pod(obj, spec, SETTINGS, pool=pools_of(spec)[0], slot=0, incarnation=0)["metadata"]["labels"]
    assert made["kueue.x-k8s.io/queue-name"] == "gpus"
    assert "app.kubernetes.io/instance" not in made
    assert digest(labels=labels) != digest() == digest(labels={"app.kubernetes.io/instance": "argo"})


# --- the files


def test_a_provider_file_is_refused_with_its_name_and_field() -> None:
    with pytest.raises(ProviderError, match=r"x\.yaml: .*displayName: Field required"):
        parse_provider("name: gke", "x.yaml")
    with pytest.raises(ProviderError, match=r"x\.yaml: not YAML"):
        parse_provider("{", "x.yaml")
    text = "name: gke\ndisplayName: x\nsources: []\ngpu: {resourceName: a}\ncapacities: {Spot: {}}\n"
    with pytest.raises(ProviderError, match="capacities without an entry: Reserved, OnDemand"):
        parse_provider(text, "x.yaml")
    twice = "cards: [{name: a, memoryGiB: 1}, {name: a, memoryGiB: 1}]"
    with pytest.raises(ProviderError, match="two cards have the same name"):
        parse_provider(text.replace("resourceName: a", f"resourceName: a, {twice}"), "x.yaml")


def test_every_provider_says_where_its_facts_are_from() -> None:
    assert {provider.name for provider in PROVIDERS} == set(Provider)
    for provider in PROVIDERS:
        assert all(source.startswith("https://") for source in provider.sources)
        assert provider.sources
    with pytest.raises(ProviderError, match="providers without a file: acs"):
        Providers([provider for provider in PROVIDERS if provider.name is not Provider.ACS])
