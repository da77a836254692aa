"""The parts of the dev cluster's program that decide; what they start is shown by using it."""

import ipaddress
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from devcluster import archive, cli, cluster, control, gobuild, images, node, packages, paths, procs, sandbox
from devcluster.backend import Backend, detect
from devcluster.steps import ClusterError

GO_MOD = (paths.GO_MODULE / "go.mod").read_text()


def which(*programs):
    return lambda name: f"/usr/bin/{name}" if name in programs else None


# --- which cluster


def test_a_named_context_wins_over_all_else_and_is_told_first() -> None:
    env = {"KINORA_CLUSTER": "prod-eu", "KINORA_REGISTRY": "registry.example/team/", "KUBECONFIG": "/x"}
    backend = detect(env, which=which("kind", "docker"), docker=lambda: True)
    assert backend == Backend("context", "prod-eu", "registry.example/team")
    assert "YOUR cluster" in backend.sentence
    assert "prod-eu" in backend.sentence


@pytest.mark.parametrize("env", [{}, {"KUBECONFIG": "/home/me/.kube/config"}, {"KINORA_CLUSTER": ""}])
def test_a_bare_kubeconfig_chooses_nothing(env) -> None:
    assert detect(env, which=which(), docker=lambda: False) == Backend("own")


def test_a_registry_alone_is_refused_and_both_ways_out_are_named() -> None:
    with pytest.raises(ClusterError, match=r"set KINORA_CLUSTER=<context>.*or unset KINORA_REGISTRY"):
        detect({"KINORA_REGISTRY": "r"}, which=which(), docker=lambda: False)


@pytest.mark.parametrize(
    ("programs", "engine", "kind"),
    [(("kind", "docker"), True, "kind"), (("kind", "docker"), False, "own"), (("docker",), True, "own")],
)
def test_kind_needs_its_program_and_an_engine(programs, engine, kind) -> None:
    assert detect({}, which=which(*programs), docker=lambda: engine).kind == kind


def test_a_control_plane_alone_is_always_ours() -> None:
    assert detect({}, which=which("kind"), docker=lambda: True, control_plane_only=True).kind == "own"


def test_images_for_a_named_context_need_a_registry(tmp_path) -> None:
    with pytest.raises(ClusterError, match="set KINORA_REGISTRY"):
        images.build_and_load(paths.Layout("x", tmp_path), Backend("context", "c"), None)


# --- where things live


def test_folders_follow_the_environment() -> None:
    assert paths.cache_root({"HOME": "/h"}) == Path("/h/.cache/kinora")
    assert paths.cache_root({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/kinora")
    assert paths.cache_root({"HOME": "/h", "XDG_CACHE_HOME": "/c", "KINORA_CACHE": "/k"}) == Path("/k")
    assert paths.Layout.of("it", {"HOME": "/h"}).root == Path("/h/.local/state/kinora/clusters/it")
    assert paths.Layout.of("it", {"KINORA_STATE": "/s"}).kubeconfig == Path("/s/clusters/it/kubeconfig")


@pytest.mark.parametrize("name", ["", "Kinora", "1st", "a-", "a/b", "..", "a" * 31, "a_b"])
def test_names_that_would_break_out_are_refused(name) -> None:
    with pytest.raises(ValueError, match="a-z, 0-9"):
        paths.check_name(name)


def test_an_interface_name_fits_the_kernel() -> None:
    names = {sandbox.interface(f"{'a' * 29}{index}") for index in range(10)}
    assert len(names) == 10
    assert all(len(name) <= 15 for name in names)


def test_bad_arguments_end_with_a_sentence_and_not_a_traceback(capsys) -> None:
    assert cli.main(["up", "--name", "Bad!"]) == 1
    assert "is not allowed" in capsys.readouterr().err


def test_one_cluster_never_takes_the_place_of_another(tmp_path) -> None:
    layout = paths.Layout("kinora", tmp_path)
    cli.check_same(layout, Backend("context", "prod"))
    _plan().save(layout)
    cli.check_same(layout, Backend("own"))
    with pytest.raises(ClusterError, match="run down --name kinora first"):
        cli.check_same(layout, Backend("context", "prod"))


# --- the network


def test_the_range_keeps_clear_of_every_route() -> None:
    assert sandbox.choose_range([]) == ipaddress.ip_network("10.213.0.0/16")
    assert sandbox.choose_range(["10.213.4.0/24", "10.214.0.1"]) == ipaddress.ip_network("10.215.0.0/16")
    with pytest.raises(ClusterError, match="no free /16"):
        sandbox.choose_range(["10.0.0.0/8"])


def test_link_services_and_pods_do_not_overlap() -> None:
    network = sandbox.choose_range([])
    services, pods = (ipaddress.ip_network(item) for item in cluster.ranges(network))
    link = ipaddress.ip_network("10.213.0.0/30")
    assert not services.overlaps(pods)
    assert not link.overlaps(services)
    assert not link.overlaps(pods)
    assert control.first_service_address(str(services)) == "10.213.16.1"


# --- builds


def test_every_staging_module_is_replaced_by_the_same_release() -> None:
    version = gobuild.kubernetes_version(GO_MOD)
    minor = version.replace("v1.", "v0.", 1)
    replaced = dict(re.findall(r"^\t(k8s\.io/\S+) => k8s\.io/\S+ (v\S+)$", GO_MOD, re.MULTILINE))
    assert set(replaced.values()) == {minor}
    # These have versions of their own.
    assert not {"k8s.io/utils", "k8s.io/kube-openapi", "k8s.io/klog/v2"} & set(replaced)
    required = set(re.findall(r"^\t(k8s\.io/\S+) v0\.\d+\.\d+(?: // indirect)?$", GO_MOD, re.MULTILINE))
    own = {"k8s.io/utils", "k8s.io/kube-openapi", "k8s.io/gengo/v2", "k8s.io/system-validators"}
    assert required - own <= set(replaced), "add a replace line for each of these"


def test_a_binary_tells_its_version() -> None:
    flags = gobuild.linker_flags("v1.34.4")
    assert "version.gitVersion=v1.34.4" in flags
    assert "version.gitMinor=34" in flags
    # helm template and helm lint refuse a chart for a newer Kubernetes than they were built for.
    assert "pkg/chartutil.k8sVersionMinor=34" in gobuild.helm_linker_flags(GO_MOD)


def test_the_key_of_the_binaries_covers_every_file(tmp_path) -> None:
    (tmp_path / "cmd").mkdir()
    (tmp_path / "go.mod").write_text("\tk8s.io/kubernetes v1.34.4\n\thelm.sh/helm/v3 v3.19.4\n")
    (tmp_path / "cmd" / "main.go").write_text("package main\n")
    first = gobuild.key(tmp_path)
    assert gobuild.key(tmp_path) == first
    (tmp_path / "cmd" / "main.go").write_text("package main // changed\n")
    second = gobuild.key(tmp_path)
    (tmp_path / "cmd" / "notes.txt").write_text("no part of it")
    assert gobuild.key(tmp_path) == second != first


def _image_tree(root: Path) -> images.Image:
    (root / "pkg" / "__pycache__").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text("a = 1\n")
    (root / "pkg" / "__pycache__" / "a.pyc").write_text("x")
    return images.Image("i", "i", ("pkg",))


def test_an_image_is_made_anew_when_an_input_or_its_base_changes(tmp_path) -> None:
    image = _image_tree(tmp_path)
    first = images.tag(image, "base", tmp_path)
    (tmp_path / "pkg" / "__pycache__" / "a.pyc").write_text("y")
    assert images.tag(image, "base", tmp_path) == first
    assert images.tag(image, "other", tmp_path) != first
    (tmp_path / "pkg" / "a.py").write_text("a = 2\n")
    assert images.tag(image, "base", tmp_path) != first


def test_a_missing_input_is_named(tmp_path) -> None:
    with pytest.raises(ClusterError, match=r"nothing\.lock is missing"):
        images.input_files(["nothing.lock"], tmp_path)


def test_an_image_brings_what_it_starts_from() -> None:
    assert images.closure(["standin"]) == ["kinora", "standin"]
    assert images.closure(["kinora"]) == ["kinora"]


def _oci(root: Path, layer: bytes) -> tuple[str, str]:
    """An OCI layout folder with one image of one layer."""
    (root / "blobs" / "sha256").mkdir(parents=True)
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": []}))
    blob = archive._put(root, layer.decode(), "application/vnd.oci.image.layer.v1.tar")
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [blob["digest"]]}})
    manifest = json.dumps({"config": archive._put(root, config, "c"), "layers": [blob]})
    entry = archive._put(root, manifest, "m") | {"annotations": {"org.opencontainers.image.ref.name": "one"}}
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return str(blob["digest"]), config


def test_an_archive_leaves_out_what_the_node_has(tmp_path) -> None:
    digest, _ = _oci(tmp_path / "oci", b"x" * 100_000)
    whole = archive.oci_archive(tmp_path / "oci", "one", ["i:1"], tmp_path / "a.tar", present=())
    rest = archive.oci_archive(tmp_path / "oci", "one", ["i:1"], tmp_path / "b.tar", present={digest})
    assert whole > 100_000 > rest


def test_an_image_of_known_layers_is_adopted_and_pruned(tmp_path) -> None:
    oci = tmp_path / "oci"
    digest, config = _oci(oci, b"layer")
    assert archive.adopt(oci, "two", json.dumps({**json.loads(config), "config": {"User": "1"}}))
    assert digest in archive.blobs_of(oci, "two")[1]
    assert not archive.adopt(oci, "three", json.dumps({"rootfs": {"diff_ids": ["sha256:unknown"]}}))
    archive.prune(oci, ["two"])
    assert archive.blob(oci, digest).exists()
    with pytest.raises(KeyError):
        archive.blobs_of(oci, "one")


# --- processes


def test_a_pid_of_somebody_else_is_never_taken_for_ours(tmp_path) -> None:
    layout = paths.Layout("x", tmp_path)
    layout.run.mkdir()
    layout.logs.mkdir()
    process = procs.start(layout, "sleeper", ["sleep", "60"])
    assert procs.recorded(layout) == [process]
    assert process.alive
    other = procs.Process("sleeper", process.pid, process.started - 1, process.boot, process.log)
    rebooted = procs.Process("sleeper", process.pid, process.started, "another boot", process.log)
    assert not other.alive
    assert not rebooted.alive
    procs.end([other, rebooted], grace=0)
    assert process.alive
    procs.end([process], grace=5)
    assert not process.alive


def test_missing_packages_are_found_by_program(monkeypatch) -> None:
    monkeypatch.setattr(packages, "find", which("ip", "nsenter", "unshare", "mount", "runc"))
    assert packages.missing(packages.NODE, cni=False) == ["conntrack", "containerd", "iptables"]


# --- configuration


def _plan() -> control.Plan:
    return control.Plan("it", "node", "/bin", "10.213.0.2", 6443, 2379, 2380, "10.213.16.0/20", "10.213.128.0/17", 4)


def test_a_plan_survives_being_written_down(tmp_path) -> None:
    layout = paths.Layout("it", tmp_path)
    assert control.Plan.load(layout) is None
    _plan().save(layout)
    assert control.Plan.load(layout) == _plan()
    layout.record.write_text("{cut off")
    assert control.Plan.load(layout) is None


def test_the_api_server_is_as_the_tests_expect(tmp_path) -> None:
    layout = paths.Layout("it", tmp_path)
    words = [str(word) for word in control.apiserver_command(layout, _plan())]
    assert "--authorization-mode=Node,RBAC" in words
    assert "--bind-address=10.213.0.2" in words
    assert f"--audit-log-path={layout.audit_log}" in words
    assert "--endpoint-reconciler-type=none" not in words


@pytest.mark.parametrize(("said", "again"), [(node.CRI_STARTING, True), ("no such flag", False)])
def test_a_kubelet_that_was_too_early_for_containerd_is_started_again(tmp_path, monkeypatch, said, again) -> None:
    layout = paths.Layout("it", tmp_path)
    for folder in (layout.logs, layout.run):
        folder.mkdir()
    kubelets: list[procs.Process] = []

    def starter(name, _command) -> procs.Process:
        is_first = name == "kubelet" and not kubelets
        process = procs.start(layout, name, ["sh", "-c", f"sleep 0.2; echo '{said}'" if is_first else "sleep 60"])
        if name == "kubelet":
            kubelets.append(process)
        return process

    server = SimpleNamespace(node_ready=lambda _name: len(kubelets) == 2, set_gpus=lambda *_: None)
    monkeypatch.setattr(node, "Api", lambda *_: server)
    try:
        if again:
            node.start_kubelet(layout, _plan(), starter)
        else:
            with pytest.raises(ClusterError, match=said):
                node.start_kubelet(layout, _plan(), starter)
        assert len(kubelets) == 1 + again
    finally:
        procs.end(procs.recorded(layout), grace=1)


def test_the_kubelet_keeps_to_its_own_cgroup_and_network(tmp_path) -> None:
    config = node.kubelet_config(paths.Layout("it", tmp_path), _plan())
    assert config["cgroupRoot"] == "/kinora-it"
    assert config["failCgroupV1"] is False
    assert config["clusterDNS"] == ["10.213.0.2"]
