"""Sources read into addresses, what is refused of them, and the signature of AWS's own example."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from kinora.api.modelserver import WeightSource
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Role
from kinora.s3.sigv4 import signed
from kinora.weights.faults import Permanent
from kinora.weights.secrets import read_secrets
from kinora.weights.sources import (
    Credentials,
    Kind,
    Rules,
    SourceRefused,
    claims_of,
    credentials_from,
    named,
    read_source,
    read_sources,
    source_findings,
)

FOUND = load_catalogue().get("wan2.2-vace-fun-a14b")
assert FOUND is not None
MODEL = FOUND
RULES = Rules(local_files=True)


def address(url: str, rules: Rules = RULES, **more: object) -> str:
    source = read_source(WeightSource.model_validate({"name": "vae", "url": url, **more}), MODEL, rules, "sources[0]")
    return source.address


@pytest.mark.parametrize(
    ("url", "more", "expected"),
    [
        ("https://files.example/a b.bin?sig=x%2Fy", {}, "https://files.example/a b.bin?sig=x%2Fy"),
        ("hub://org/repo/dir/f.safetensors", {}, "https://huggingface.co/org/repo/resolve/main/dir/f.safetensors"),
        ("hub://org/repo.x@v1.0/f", {}, "https://huggingface.co/org/repo.x/resolve/v1.0/f"),
        ("hub://o/r/f", {"hub": "https://hub.example/models/"}, "https://hub.example/models/o/r/resolve/main/f"),
        ("s3://films/a/b c+é", {}, "https://s3.us-east-1.amazonaws.com/films/a/b%20c%2B%C3%A9"),
        ("s3://films/a", {"s3": {"region": "eu-west-1"}}, "https://s3.eu-west-1.amazonaws.com/films/a"),
        ("s3://films/a", {"s3": {"addressing": "VirtualHosted"}}, "https://films.s3.us-east-1.amazonaws.com/a"),
        ("s3://films/a", {"s3": {"endpoint": "https://minio:9000/x/"}}, "https://minio:9000/x/films/a"),
        (
            "s3://films/a",
            {"s3": {"endpoint": "https://minio:9000", "addressing": "VirtualHosted"}},
            "https://films.minio:9000/a",
        ),
        ("oss://films/a", {"s3": {"region": "cn-hangzhou"}}, "https://films.s3.oss-cn-hangzhou.aliyuncs.com/a"),
        (
            "oss://films/a",
            {"s3": {"endpoint": "https://s3.oss-cn-hangzhou-internal.aliyuncs.com", "region": "cn-hangzhou"}},
            "https://films.s3.oss-cn-hangzhou-internal.aliyuncs.com/a",
        ),
        ("pvc://archive/wan/vae.safetensors", {}, "wan/vae.safetensors"),
        ("file:///data/vae.safetensors", {}, "/data/vae.safetensors"),
    ],
)
def test_an_address(url: str, more: dict[str, object], expected: str) -> None:
    assert address(url, **more) == expected


@pytest.mark.parametrize(
    ("url", "more", "words"),
    [
        ("http://files.example/a", {}, "weights.allowHTTP"),
        ("ftp://files.example/a", {}, "https://, hub://"),
        ("/etc/passwd", {}, "https://, hub://"),
        ("https://user:hush@files.example/a", {}, "secretName"),
        ("https:///a", {}, "a URL with a host"),
        ("hub://org/repo", {}, "hub://OWNER/REPO/PATH"),
        ("hub://org/repo/../../x", {}, "hub://OWNER/REPO/PATH"),
        ("hub://o/r/f", {"hub": "http://hub.example"}, "weights.allowHTTP"),
        ("s3://films", {}, "s3://BUCKET/KEY"),
        ("s3://films/a", {"s3": {"endpoint": "http://minio"}}, "weights.allowHTTP"),
        ("oss://films/a", {}, "s3.region"),
        ("pvc://archive", {}, "pvc://CLAIM/PATH"),
        ("pvc://archive/a/../../b", {}, "no '..'"),
        ("pvc://Archive_/a", {}, "pvc://CLAIM/PATH"),
        ("file://host/a", {}, "https://, hub://"),
    ],
)
def test_what_is_refused_is_told_with_its_field_and_without_secrets(
    url: str, more: dict[str, object], words: str
) -> None:
    with pytest.raises(SourceRefused) as caught:
        address(url, **more)
    assert words in str(caught.value)
    assert str(caught.value).startswith("sources[0].url is ")
    assert "hush" not in str(caught.value)


def test_files_of_this_machine_are_no_source_in_a_cluster() -> None:
    with pytest.raises(SourceRefused, match="https://"):
        address("file:///etc/passwd", Rules())


def test_http_where_it_is_allowed() -> None:
    assert address("http://files/a", Rules(allow_http=True)) == "http://files/a"


@pytest.mark.parametrize(
    "name", ["diffusionLowNoise", MODEL.weights[1].path, MODEL.weights[1].name, MODEL.weights[1].name.split("/")[-1]]
)
def test_a_file_by_its_role_its_path_or_its_name(name: str) -> None:
    assert named(MODEL, name) is MODEL.weights[1]


def test_every_fault_at_once() -> None:
    given = [
        WeightSource(name="vae", url="https://x/a"),
        WeightSource(name="nothing", url="https://x/b"),
        WeightSource(name=MODEL.weight(Role.VAE).path, url="https://x/c"),
        WeightSource(name="diffusion", url="gopher://x"),
    ]
    found = [finding.field for finding in source_findings(given, MODEL, RULES)]
    assert found == [
        "spec.weights.sources[1].name",
        "spec.weights.sources[2].name",
        "spec.weights.sources[3].url",
    ]
    with pytest.raises(SourceRefused, match="each weight file once"):
        read_sources([given[0], given[2]], MODEL, RULES)


def test_sources_come_in_the_catalogues_order_and_name_what_they_need() -> None:
    given = [
        WeightSource(name="vae", url="pvc://archive/a", secret_name="s"),
        WeightSource(name="diffusion", url="https://x/a?token=hush"),
    ]
    first, second = read_sources(given, MODEL, RULES)
    assert (first.weight.role, second.weight.role) == ("diffusion", "vae")
    assert claims_of([first, second]) == ["archive"]
    assert (first.kind, second.kind) == (Kind.HTTP, Kind.FILE)
    assert first.shown == "https://x/a"


def test_credentials_from_mounted_secrets(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    (folder / "..data").mkdir(parents=True)
    (folder / "token").write_text("hush\n")
    found = read_secrets(["hub"], tmp_path, {"AWS_ACCESS_KEY_ID": "a"})
    assert found["hub"] == Credentials(token="hush")
    assert found[None].access_key == "a"
    with pytest.raises(Permanent, match="Secret gone"):
        read_secrets(["gone"], tmp_path, {})
    assert read_secrets(["hub"], None, {"HF_TOKEN": "t"})["hub"] == credentials_from({"token": "t"})


def test_the_signature_of_the_documents_example() -> None:
    """ "Example: GET Object" of the Amazon S3 API Reference."""
    found = signed(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        {"Range": "bytes=0-9"},
        Credentials(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        "us-east-1",
        dt.datetime(2013, 5, 24, tzinfo=dt.UTC),
    )
    assert found["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
