"""One table of what people try so that a server of ours asks an address of theirs for them.

Whatever takes a URL of a user is held against all of it: the stager's fetcher (test_ssrf.py beside this file), and the
gateway's webhooks (tests/unit/gateway/webhooks). `names` is what the attacker's DNS answers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trick:
    """A URL, why it is tried, and a word of the refusal."""

    why: str
    url: str
    word: str
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.why


def _name(why: str, word: str, *addresses: str) -> Trick:
    """A harmless name that the attacker's DNS leads somewhere."""
    return Trick(why, "https://cdn.attacker.example/v.mp4", word, {"cdn.attacker.example": addresses})


TRICKS: tuple[Trick, ...] = (
    # --- metadata services: address and name
    Trick("AWS, Azure, GCP, OpenStack metadata", "http://169.254.169.254/latest/meta-data/", "metadata"),
    Trick("metadata over IPv6 at AWS", "http://[fd00:ec2::254]/latest/", "metadata"),
    Trick("metadata over IPv6 at GCP", "http://[fd20:ce::254]/computeMetadata/v1/", "metadata"),
    Trick("Alibaba Cloud metadata", "http://100.100.100.200/latest/meta-data/ram/", "metadata"),
    Trick("Oracle Cloud metadata", "http://192.0.0.192/opc/v2/", "metadata"),
    Trick("Azure's wire server, a public address", "http://168.63.129.16/machine?comp=goalstate", "metadata"),
    Trick("credentials of an ECS task", "http://169.254.170.2/v2/credentials/", "metadata"),
    Trick("credentials of an EKS pod", "http://169.254.170.23/v1/credentials", "metadata"),
    Trick("Tencent Cloud metadata", "http://169.254.0.23/latest/", "link-local"),
    Trick(
        "GCP metadata by its name", "http://metadata.google.internal/", "metadata",
        {"metadata.google.internal": ["169.254.169.254"]},
    ),
    Trick(
        "Tencent metadata by its name", "http://metadata.tencentyun.com/", "link-local",
        {"metadata.tencentyun.com": ["169.254.0.23"]},
    ),
    Trick("Alibaba metadata by a name", "http://meta.attacker.example/", "metadata",
          {"meta.attacker.example": ["100.100.100.200"]}),
    Trick("a link-local address of IPv6 with the metadata address in it", "http://[fe80::a9fe:a9fe]/", "metadata"),
    # --- this machine, this network
    Trick("loopback", "https://127.0.0.1/", "loopback"),
    Trick("loopback, another of 16 million", "https://127.88.7.6/", "loopback"),
    Trick("loopback over IPv6", "https://[::1]/", "loopback"),
    Trick("loopback over IPv6, written long", "https://[0:0:0:0:0:0:0:1]/", "loopback"),
    Trick("localhost by the system's name", "https://localhost/", "loopback", {"localhost": ["127.0.0.1", "::1"]}),
    Trick("a name beneath localhost", "https://api.localhost/", "loopback", {"api.localhost": ["::1"]}),
    Trick("the unspecified address, which connects to loopback", "https://0.0.0.0/", "unspecified"),
    Trick("the unspecified address of IPv6", "https://[::]/", "unspecified"),
    Trick("this network", "https://0.1.2.3/", "this network"),
    Trick("private 10/8: pods and services", "https://10.96.0.1/", "private"),
    Trick("private 172.16/12", "https://172.31.0.10/", "private"),
    Trick("private 192.168/16: a router", "https://192.168.1.1/", "private"),
    Trick("behind carrier NAT: object stores inside Alibaba Cloud", "https://100.118.28.45/", "carrier NAT"),
    Trick("unique local addresses of IPv6", "https://[fd12:3456::1]/", "unique local"),
    Trick("site-local addresses of IPv6", "https://[fec0::1]/", "site-local"),
    Trick("multicast", "https://239.255.255.250/", "multicast"),
    Trick("multicast of IPv6", "https://[ff02::1]/", "multicast"),
    Trick("broadcast", "https://255.255.255.255/", "broadcast"),
    Trick("reserved addresses", "https://240.0.0.1/", "reserved"),
    Trick("benchmarking networks", "https://198.18.0.1/", "benchmarking"),
    # --- an IPv4 address inside an IPv6 address
    Trick("IPv4-mapped", "https://[::ffff:127.0.0.1]/", "IPv4-mapped"),
    Trick("IPv4-mapped, in hex", "http://[::ffff:a9fe:a9fe]/", "IPv4-mapped"),
    Trick("IPv4-mapped, of a public address", "https://[::ffff:8.8.8.8]/", "IPv4-mapped"),
    Trick("IPv4-compatible", "https://[::127.0.0.1]/", "IPv4-compatible"),
    Trick("IPv4-translated", "https://[::ffff:0:127.0.0.1]/", "IPv4-translated"),
    Trick("NAT64", "https://[64:ff9b::a9fe:a9fe]/", "NAT64"),
    Trick("local NAT64", "https://[64:ff9b:1::a00:1]/", "local NAT64"),
    Trick("6to4", "https://[2002:7f00:1::1]/", "6to4"),
    Trick("Teredo", "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", "Teredo"),
    Trick("ISATAP", "https://[2606:4700::5efe:a00:1]/", "ISATAP"),
    # --- an address written in another way
    Trick("one decimal number", "http://2852039166/", "four decimal"),
    Trick("one hexadecimal number", "http://0xa9fea9fe/", "four decimal"),
    Trick("one octal number", "http://025177524776/", "four decimal"),
    Trick("octal parts", "https://0177.0.0.01/", "four decimal"),
    Trick("hexadecimal parts", "https://0x7f.0x0.0x0.0x1/", "four decimal"),
    Trick("parts left out", "https://127.1/", "four decimal"),
    Trick("parts over 255", "https://127.0.0.513/", "four decimal"),
    Trick("leading zeros", "https://127.000.000.001/", "four decimal"),
    Trick("a trailing dot", "https://127.0.0.1./", "four decimal"),
    Trick("full-width digits", "https://１２７.０.０.１/", "xn--"),
    Trick("circled digits", "https://①②⑦.⓪.⓪.①/", "xn--"),
    Trick("ideographic full stops", "https://127。0。0。1/", "xn--"),
    Trick("full-width letters", "https://ｌｏｃａｌｈｏｓｔ/", "xn--"),
    Trick("percent-encoded digits", "https://%31%32%37.0.0.1/", "four decimal"),
    Trick("an encoded NUL before another host", "https://127.0.0.1%00.good.example/", "%-encoded"),
    Trick("a zone id", "http://[fe80::1%25eth0]/", "zone"),
    Trick("a zone id, not encoded", "http://[fe80::1%eth0]/", "zone"),
    Trick("an address of a future version", "http://[v1.fe80::a]/", "IPv6"),
    Trick("IPv6 without brackets", "https://::1/", "host"),
    # --- where one reader sees the host, and another sees something else
    Trick("a user that looks like the host", "https://good.example@127.0.0.1/", "user"),
    Trick("a password", "https://good.example:443@127.0.0.1/", "user"),
    Trick("an at sign, encoded", "https://good.example%40127.0.0.1/", "four decimal"),
    Trick("a backslash before the at sign", "https://127.0.0.1\\@good.example/", "backslash"),
    Trick("backslashes for slashes", "https:\\\\127.0.0.1/", "backslash"),
    Trick("a fragment before the at sign", "https://127.0.0.1#@good.example/", "loopback"),
    Trick("a query before the at sign", "https://127.0.0.1?@good.example/", "loopback"),
    Trick("a second host after a comma", "https://127.0.0.1,good.example/", "letters"),
    Trick("a tab in the host", "https://127.0.\t0.1/", "spaces"),
    Trick("a line end and a header", "https://good.example/\r\nHost: 127.0.0.1", "line ends"),
    Trick("a space and another host", "https://good.example 127.0.0.1/", "spaces"),
    Trick("a right-to-left override", "https://good.example/\u202e4pm", "control"),
    Trick("a name that ends in a dot", "https://localhost./", "dot at the end"),
    Trick("no host", "https:///etc/passwd", "host"),
    Trick("three slashes", "https:////127.0.0.1/", "host"),
    # --- other schemes and ports
    Trick("a file", "file:///var/run/secrets/kubernetes.io/serviceaccount/token", "https://"),
    Trick("a unix socket", "unix:///var/run/docker.sock", "https://"),
    Trick("a unix socket behind http", "http+unix://%2Fvar%2Frun%2Fdocker.sock/info", "https://"),
    Trick("gopher, which speaks any protocol", "gopher://127.0.0.1:6379/_FLUSHALL", "https://"),
    Trick("dict", "dict://127.0.0.1:11211/stats", "https://"),
    Trick("no scheme", "//169.254.169.254/", "https://"),
    Trick("ssh's port", "https://good.example:22/", "port"),
    Trick("redis's port", "https://good.example:6379/", "port"),
    Trick("the kubelet's port", "https://good.example:10250/pods", "port"),
    Trick("a port with a sign", "https://good.example:+443/", "port"),
    Trick("a port that overflows to 80", "https://good.example:65616/", "port"),
    # --- names: what is resolved is checked, all of it, and nothing is resolved twice
    _name("a public name with a private address", "private", "10.0.0.1"),
    _name("a public name with the metadata address", "metadata", "169.254.169.254"),
    _name("a public address first, a private one after it", "private", "93.184.215.14", "192.168.0.1"),
    _name("a mapped address in the answer", "IPv4-mapped", "::ffff:10.0.0.1"),
    _name("a zone id in the answer", "zone", "fe80::1%eth0"),
    _name("NAT64 in the answer", "NAT64", "64:ff9b::a00:1"),
    Trick("a name that carries its address", "https://127-0-0-1.nip.example/", "loopback",
          {"127-0-0-1.nip.example": ["127.0.0.1"]}),
    Trick("the API server by its name", "https://kubernetes.default.svc/", "private",
          {"kubernetes.default.svc": ["10.96.0.1"]}),
    Trick("a store inside the cluster", "http://minio.storage.svc.cluster.local/", "private",
          {"minio.storage.svc.cluster.local": ["10.244.3.7"]}),
    Trick("a punycode name of full-width letters", "https://xn--1lqs71d.attacker.example/", "loopback",
          {"xn--1lqs71d.attacker.example": ["127.0.0.1"]}),
)  # fmt: skip


async def resolver(names: Mapping[str, Sequence[str]], host: str) -> Sequence[str]:
    """The attacker's DNS; `good.example` is a public name that it does not have."""
    known = {"good.example": ["93.184.215.14"], **names}
    if host not in known:
        raise OSError("no such name")
    return known[host]


_watching: list[list[object]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.connect" and _watching:
        for seen in _watching:
            seen.append(arguments[1])


sys.addaudithook(_audit)


@contextmanager
def connections() -> Iterator[list[object]]:
    """Every address that this process connects to meanwhile, as the interpreter itself tells."""
    seen: list[object] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)
