"""Signatures held against the examples of the S3 API Reference, and what an address is."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from pathlib import Path

import pytest

from kinora.api.findings import findings
from kinora.api.s3store import S3Store
from kinora.s3.address import Bucket
from kinora.s3.answers import Entry, completion, error_code, is_error, listing, open_uploads, upload_id
from kinora.s3.credentials import Credentials, MountedCredentials
from kinora.s3.faults import answered
from kinora.s3.sigv4 import MAX_SECONDS, presigned, signed

# "Examples: Signature Calculations in AWS Signature Version 4", Amazon S3 API Reference.
KEYS = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
AT = dt.datetime(2013, 5, 24, tzinfo=dt.UTC)
HOST = "https://examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "expected"),
    [
        (
            "GET", "/test.txt", {"Range": "bytes=0-9"}, b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT", "/test%24file.text",
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET", "/?lifecycle", {}, b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET", "/?max-keys=2&prefix=J", {}, b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)  # fmt: skip
def test_the_documented_signatures(method: str, url: str, headers: dict[str, str], body: bytes, expected: str) -> None:
    payload = hashlib.sha256(body).hexdigest()
    out = signed(method, HOST + url, headers, KEYS, "us-east-1", AT, payload)
    assert out["Authorization"].endswith(f"Signature={expected}")


def test_the_documented_presigned_url() -> None:
    url = presigned("GET", f"{HOST}/test.txt", {}, KEYS, "us-east-1", AT, 86400)
    assert url == (
        f"{HOST}/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_temporary_credentials_are_told() -> None:
    temporary = Credentials("A", "B", "the/token=")
    assert signed("GET", HOST, {}, temporary, "eu", AT)["x-amz-security-token"] == "the/token="
    assert "X-Amz-Security-Token=the%2Ftoken%3D&" in presigned("GET", HOST, {}, temporary, "eu", AT, 1)
    assert "the/token" not in repr(temporary)


@pytest.mark.parametrize("seconds", [0, -1, MAX_SECONDS + 1])
def test_a_link_has_an_end(seconds: int) -> None:
    with pytest.raises(ValueError, match="allowed: 1 to 604800"):
        presigned("GET", HOST, {}, KEYS, "eu", AT, seconds)


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "url", "region"),
    [
        ({}, "https://films.s3.us-east-1.amazonaws.com/k", "us-east-1"),
        ({"region": "eu-west-1"}, "https://films.s3.eu-west-1.amazonaws.com/k", "eu-west-1"),
        ({"addressing": "Path"}, "https://s3.us-east-1.amazonaws.com/films/k", "us-east-1"),
        ({"bucket": "films.example"}, "https://s3.us-east-1.amazonaws.com/films.example/k", "us-east-1"),
        ({"endpoint": "https://s3.eu-west-3.amazonaws.com"}, "https://films.s3.eu-west-3.amazonaws.com/k", "eu-west-3"),
        (
            {"endpoint": "https://s3.oss-cn-hangzhou-internal.aliyuncs.com"},
            "https://films.s3.oss-cn-hangzhou-internal.aliyuncs.com/k", "cn-hangzhou",
        ),
        ({"endpoint": "http://minio.storage.svc:9000/"}, "http://minio.storage.svc:9000/films/k", "us-east-1"),
        (
            {"endpoint": "https://minio:9000", "addressing": "VirtualHosted", "region": "x-1"},
            "https://films.minio:9000/k", "x-1",
        ),
    ],
)  # fmt: skip
def test_where_a_bucket_is(spec: dict[str, str], url: str, region: str) -> None:
    bucket = Bucket.of(S3Store.model_validate({"bucket": "films", **spec}))
    assert (bucket.url("k"), bucket.region) == (url, region)


def test_a_bucket_has_a_prefix_and_a_public_side() -> None:
    spec = {
        "bucket": "films",
        "endpoint": "http://minio:9000",
        "publicEndpoint": "https://s3.example",
        "prefix": "a/b/",
    }
    bucket = Bucket.of(S3Store.model_validate(spec))
    assert bucket.root == "s3://films/a/b/"
    assert bucket.url("a/b/c d+é", public=True) == "https://s3.example/films/a/b/c%20d%2B%C3%A9"
    assert bucket.url(query=(("uploads", ""), ("prefix", "a b"))) == "http://minio:9000/films?prefix=a%20b&uploads="


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"endpoint": "minio:9000"}, "endpoint is minio:9000; allowed: https:// or http://, a host, and a port"),
        ({"endpoint": "https://user:pw@minio"}, "no user, path or query"),
        ({"endpoint": "https://minio/films"}, "no user, path or query"),
        ({"publicEndpoint": "//cdn"}, "publicEndpoint is //cdn"),
        ({"prefix": "../up"}, "a relative path whose parts"),
        ({"prefix": "/a"}, "a relative path whose parts"),
        (
            {"endpoint": "https://10.1.2.3:9000", "addressing": "VirtualHosted"},
            "Path, as the endpoint is an IP address",
        ),
        ({"endpoint": "https://[fd00::1]:9000", "addressing": "VirtualHosted"}, "Path, as the endpoint is an IP"),
        ({"bucket": "a.film", "addressing": "VirtualHosted"}, "Path, as no certificate covers a bucket with a dot"),
        (
            {"endpoint": "https://s3.oss-cn-hangzhou.aliyuncs.com", "addressing": "Path"},
            "VirtualHosted, as OSS takes nothing else",
        ),
        ({"caConfigMap": {"name": "ca", "key": "ca.crt"}}, "unset, unless endpoint begins with https://"),
        ({"bucket": "Films"}, "bucket"),
        ({"secret_name": "x"}, "secret_name"),
    ],
)
def test_what_cannot_work_is_told(spec: dict[str, object], words: str) -> None:
    found = "; ".join(map(str, findings(S3Store, {"bucket": "films", **spec}, "spec.artifacts.s3")))
    assert words in found


# --- credentials ------------------------------------------------------------------------------------------------------


def test_a_secret_is_read_again_when_the_kubelet_turns_its_link(tmp_path: Path) -> None:
    def mounted(version: str, **keys: str) -> None:
        (tmp_path / version).mkdir()
        for name, text in keys.items():
            (tmp_path / version / name).write_text(f"{text}\n")
        os.symlink(version, tmp_path / "..new")
        os.replace(tmp_path / "..new", tmp_path / "..data")
        for name in keys:
            if not (tmp_path / name).is_symlink():
                os.symlink(f"..data/{name}", tmp_path / name)

    mounted("..1", accessKeyID="one", secretAccessKey="first")
    provider = MountedCredentials(tmp_path)
    assert provider() == provider() == Credentials("one", "first")
    mounted("..2", accessKeyID="two", secretAccessKey="second", sessionToken="token")
    assert provider() == Credentials("two", "second", "token")


def test_the_names_of_variables_are_keys_too_and_half_a_pair_is_none(tmp_path: Path) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("one")
    provider = MountedCredentials(tmp_path)
    with pytest.raises(ValueError, match="no accessKeyID and secretAccessKey"):
        provider()
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("first")
    assert provider() == Credentials("one", "first")


# --- answers ----------------------------------------------------------------------------------------------------------

NAMESPACE = b' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def test_answers_are_read_whatever_their_namespace() -> None:
    for space in (b"", NAMESPACE):
        begun = b"<?xml version='1.0'?><InitiateMultipartUploadResult%s><UploadId>u&amp;1</UploadId></Init" % space
        assert upload_id(begun + b"iateMultipartUploadResult>") == "u&1"
        page = (
            b"<ListBucketResult%s><IsTruncated>true</IsTruncated><NextContinuationToken>n</NextContinuationToken>"
            b"<Contents><Key>a</Key><Size>7</Size><LastModified>2026-05-01T12:00:00.5Z</LastModified></Contents>"
            b"<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes></ListBucketResult>"
        )
        found = listing(page % space)
        assert (found.entries, found.prefixes, found.next) == ((Entry("a", 7, 1777636800.5),), ("b/",), "n")
    assert listing(page.replace(b"true", b"false") % b"").next == ""


def test_what_is_no_answer_is_nothing() -> None:
    for body in (b"", b"busy", b"<html><body>", b"<Error><Code>&lt;script&gt;</Code></Error>"):
        assert (error_code(body), upload_id(body), open_uploads(body)) == ("", "", ())
    assert is_error(b"  \n <Error><Code>InternalError</Code></Error>")
    assert not is_error(b"<CompleteMultipartUploadResult/>")
    assert completion(['"a"', "b&c"]).count(b"<Part>") == 2
    assert b"b&amp;c" in completion(['"a"', "b&c"])


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [(503, "SlowDown", True), (500, "", True), (429, "", True), (400, "RequestTimeout", True), (409, "", False),
     (409, "OperationAborted", True), (403, "AccessDenied", False), (404, "NoSuchKey", False), (301, "", False)],
)  # fmt: skip
def test_which_refusals_pass(status: int, code: str, passes: bool) -> None:
    assert answered("k", status, code).may_pass is passes


def test_a_bucket_elsewhere_is_told_with_its_region() -> None:
    words = str(answered("k", 301, "PermanentRedirect", region="eu-north-1"))
    assert (
        words
        == "k: the bucket is elsewhere, which is in region eu-north-1; set artifacts.s3.region and endpoint to its own"
    )
