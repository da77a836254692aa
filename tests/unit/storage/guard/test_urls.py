"""One reading of a URL: what is refused by its text, what becomes of the rest, what an administrator opens."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kinora.storage.guard.policy import Policy
from kinora.storage.guard.urls import UrlRefused, parse_url

FIELD = "spec.inputs.video.url"

REFUSED = [
    ("", "0 characters"),
    ("https://h/" + "x" * 2048, "2048"),
    ("ftp://example.com/a", "https://"),
    ("file:///etc/passwd", "https://"),
    ("gopher://127.0.0.1:6379/_", "https://"),
    ("data:video/mp4;base64,AAAA", "https://"),
    ("//example.com/a", "https://"),
    ("https:example.com", "https://"),
    ("https:/example.com/a", "https://"),
    ("example.com/a", "https://"),
    ("javascript:1", "https://"),
    ("https:///a", "host"),
    ("https://?x", "host"),
    ("https://#x", "host"),
    ("https://user@example.com/", "user"),
    ("https://user:pw@example.com/", "user"),
    ("https://example.com@127.0.0.1/", "user"),
    ("https://@example.com/", "user"),
    ("https://example.com\\@127.0.0.1/", "backslash"),
    ("https:\\\\example.com/", "backslash"),
    ("https://example.com/\\..", "backslash"),
    ("https://example.com/\r\nHost: x", "line ends"),
    ("https://exa\nmple.com/", "line ends"),
    ("https://example.com/a b", "spaces"),
    (" https://example.com/", "spaces"),
    ("https://example.com/\t", "spaces"),
    ("https://example.com/\0", "control"),
    ("https://example.com/\u202e4pm", "control"),
    ("https://exam\u200bple.com/", "control"),
    ("https://example.com/\x7f", "control"),
    ("https://example.com./", "no dot at the end"),
    ("https://example..com/", "single dots"),
    ("https://.example.com/", "single dots"),
    ("https://localhost%2e/", "%-encoded"),
    ("https://%6c%6f%63alhost/", "%-encoded"),
    ("https://127.0.0.1%00.example.com/", "%-encoded"),
    ("https://ex*mple.com/", "letters"),
    ("https://-a.example/", "letters"),
    ("https://a-.example/", "letters"),
    ("https://" + "a" * 64 + ".example/", "letters"),
    ("https://" + "a." * 130 + "example/", "letters"),
    ("https://0177.0.0.1/", "four decimal"),
    ("https://127.1/", "four decimal"),
    ("https://2130706433/", "four decimal"),
    ("https://0x7f000001/", "four decimal"),
    ("https://0x7f.0.0.1/", "four decimal"),
    ("https://127.0.0.0x1/", "four decimal"),
    ("https://127.0.0.01/", "four decimal"),
    ("https://256.0.0.1/", "four decimal"),
    ("https://1.2.3.4.5/", "four decimal"),
    ("https://example.123/", "four decimal"),
    ("https://0x/", "four decimal"),
    ("https://127.0.0.1./", "four decimal"),
    ("https://①②⑦.⓪.⓪.①/", "xn--"),
    ("https://127。0。0。1/", "xn--"),
    ("https://ⅼocalhost/", "xn--"),
    ("https://bücher.example/", "xn--"),
    ("https://[::1%25eth0]/", "zone"),
    ("https://[fe80::1%eth0]/", "zone"),
    ("https://[::1/", "bracket"),
    ("https://[::1]x/", "bracket"),
    ("https://[v1.x]/", "IPv6"),
    ("https://[]/", "IPv6"),
    ("https://[127.0.0.1]/", "IPv6"),
    ("https://::1/", "host"),
    ("https://example.com:/", "port"),
    ("https://example.com:0/", "port"),
    ("https://example.com:65536/", "port"),
    ("https://example.com:+80/", "port"),
    ("https://example.com:80:80/", "port"),
    ("https://example.com:８０/", "port"),
    ("https://example.com:0x50/", "port"),
]

SHUT = [
    ("https://127.0.0.1/", "loopback"),
    ("https://[::1]/", "loopback"),
    ("http://169.254.169.254/latest", "metadata"),
    ("http://100.100.100.200/latest", "metadata"),
    ("https://[::ffff:127.0.0.1]/", "IPv4-mapped"),
    ("https://[::]/", "unspecified"),
    ("https://[64:ff9b::7f00:1]/", "NAT64"),
    ("https://10.0.0.1/", "private"),
    ("https://[fd00::1]/", "unique local"),
    ("https://example.com:22/", "port"),
    ("https://example.com:6443/", "port"),
    ("http://1.1.1.1:8080/", "port"),
]


@pytest.mark.parametrize(("url", "word"), REFUSED)
def test_refused_by_its_text(url: str, word: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        parse_url(url, FIELD)
    assert word in str(refused.value)
    assert str(refused.value).startswith(FIELD)
    assert "; allowed: " in str(refused.value)


@pytest.mark.parametrize(("url", "word"), SHUT)
def test_refused_by_policy(url: str, word: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        Policy().check_target(parse_url(url, FIELD), FIELD)
    assert word in str(refused.value)
    assert str(refused.value).startswith(FIELD)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://Example.COM", "https://example.com/"),
        ("HTTPS://example.com:443/a?b#c", "https://example.com/a?b"),
        ("http://example.com:80?x=1", "http://example.com/?x=1"),
        ("https://example.com:8443/a", "https://example.com:8443/a"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        (
            "https://my_bucket.s3.example/k?X-Amz-Signature=a%2Fb",
            "https://my_bucket.s3.example/k?X-Amz-Signature=a%2Fb",
        ),
        ("https://example.com/视频.mp4", "https://example.com/%E8%A7%86%E9%A2%91.mp4"),
        ("https://example.com/100%.mp4", "https://example.com/100%25.mp4"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("https://[2606:4700:0:0::1111]:444/", "https://[2606:4700::1111]:444/"),
        ("https://1.1.1.1/a", "https://1.1.1.1/a"),
    ],
)
def test_read(url: str, read: str) -> None:
    assert parse_url(url, FIELD).url == read


@pytest.mark.parametrize("url", ["ftp://user:word@x/a?b", "x://user:word@y", "https://user:word@x/", "//user:word@x"])
def test_messages_hold_no_password(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        parse_url(url, "f")
    assert "word" not in str(refused.value).replace("password", "")


def test_messages_hold_no_signature() -> None:
    target = parse_url("https://example.com/a?Signature=secret", FIELD)
    assert target.shown == "https://example.com/a"
    with pytest.raises(UrlRefused) as refused:
        parse_url("ftp://example.com/a?Signature=secret", FIELD)
    assert "secret" not in str(refused.value)


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@example("https://[")
@example("https://a.\u0661/")
def test_never_another_exception(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com{text}"):
        try:
            target = parse_url(url, FIELD)
        except UrlRefused:
            continue
        assert target.url.isascii()
        assert parse_url(target.url, FIELD) == target or len(target.url) > 2048


OPEN = Policy.of(["minio.storage.svc:9000", "*.corp.example", "10.9.9.9"], ["10.1.0.0/16", "fd12::/32"])


@pytest.mark.parametrize(
    ("url", "address", "opened"),
    [
        ("http://minio.storage.svc:9000/", "10.7.7.7", True),
        ("http://minio.storage.svc:9001/", "10.7.7.7", False),
        ("http://minio.storage.svc/", "10.7.7.7", False),
        ("https://a.corp.example/", "192.168.1.1", True),
        ("https://a.b.corp.example/", "192.168.1.1", True),
        ("https://corp.example/", "192.168.1.1", False),
        ("https://corp.example.evil.example/", "192.168.1.1", False),
        ("https://xcorp.example/", "192.168.1.1", False),
        ("https://a.corp.example/", "169.254.169.254", False),
        ("https://a.corp.example/", "100.100.100.200", False),
        ("https://a.corp.example/", "169.254.1.1", False),
        ("https://a.corp.example/", "224.0.0.1", False),
        ("https://a.corp.example/", "127.0.0.1", True),
        ("https://other.example/", "10.1.2.3", True),
        ("https://other.example/", "10.2.2.3", False),
        ("https://other.example/", "::ffff:10.1.2.3", False),
        ("https://other.example/", "fd12::1", True),
        ("https://other.example/", "fd12::1%1", False),
        ("https://other.example/", "fd13::1", False),
        ("https://other.example/", "1.1.1.1", True),
        ("https://10.9.9.9/", "10.9.9.9", True),
    ],
)
def test_what_an_administrator_opens(url: str, address: str, opened: bool) -> None:
    target = parse_url(url, FIELD)
    try:
        OPEN.check_target(target, FIELD)
        OPEN.check_address(target, address, FIELD)
    except UrlRefused:
        assert not opened
    else:
        assert opened


@pytest.mark.parametrize(
    ("hosts", "networks", "named"),
    [(["*"], [], "*"), (["https://a"], [], "https://a"), ([], ["10.0.0.1/8"], "10.0.0.1/8"), ([], ["x"], "x")],
)
def test_a_bad_opening_is_named(hosts: list[str], networks: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=r"^inputs\.") as error:
        Policy.of(hosts, networks, field="inputs.")
    assert f" is {named}; allowed: " in str(error.value)
