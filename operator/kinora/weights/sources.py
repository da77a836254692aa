"""Where a weight file comes from: `spec.weights.sources[]` read into an address that can be asked. Pure, no I/O.

Addresses: `https://`, `http://` (where allowed), `hub://OWNER/REPO[@REVISION]/PATH` (a model hub's public file URL),
`s3://BUCKET/KEY` and `oss://BUCKET/KEY`, `pvc://CLAIM/PATH`, and `file:///PATH` for the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, urlsplit

from kinora.api.base import Finding
from kinora.api.modelserver import WeightSource
from kinora.api.s3store import Addressing
from kinora.catalogue.model import Dtype, Model, Weight
from kinora.s3 import credentials

#: Where public files of model hubs are, unless a source or the installation names another.
DEFAULT_HUB = "https://huggingface.co"
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.-]+))?/(?P<path>.+)")
_SCHEMES = "https://, hub://OWNER/REPO/PATH, s3://BUCKET/KEY, oss://BUCKET/KEY, pvc://CLAIM/PATH"


class Kind(StrEnum):
    """How a source is asked."""

    HTTP = "HTTP"
    S3 = "S3"
    FILE = "File"


class SourceRefused(Exception):  # noqa: N818 - it reads as a verdict
    """A source that cannot be used."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        super().__init__(str(finding))


@dataclass(frozen=True, slots=True)
class Source:
    """One weight file of the catalogue and where its bytes are."""

    weight: Weight
    kind: Kind
    address: str
    "HTTP, S3: the URL that is asked. FILE: the path, below the claim's mount where there is a claim."
    shown: str
    "What may be printed, logged and kept: no query, no credentials."
    sha256: str | None = None
    "Of the bytes at the source."
    secret: str | None = None
    claim: str | None = None
    region: str = ""
    "S3: the region that requests are signed for."

    @property
    def expected(self) -> str | None:
        """The sha256 of the source's bytes, where the source or the catalogue knows it."""
        return self.sha256 or self.weight.sha256


@dataclass(frozen=True, slots=True)
class Rules:
    """What an installation allows: plain http, the hub that `hub://` means, and whether `file://` is read."""

    allow_http: bool = False
    hub: str = DEFAULT_HUB
    local_files: bool = False


def read_sources(given: Sequence[WeightSource], model: Model, rules: Rules) -> list[Source]:
    """The sources in the catalogue's order of files. Raises SourceRefused for the first one that is not right."""
    found: dict[str, Source] = {}
    for index, item in enumerate(given):
        source = read_source(item, model, rules, f"spec.weights.sources[{index}]")
        if source.weight.path in found:
            raise SourceRefused(Finding(f"spec.weights.sources[{index}].name", item.name, "each weight file once"))
        found[source.weight.path] = source
    return [found[weight.path] for weight in model.weights if weight.path in found]


def source_findings(given: Sequence[WeightSource], model: Model, rules: Rules) -> Iterator[Finding]:
    """Everything that is wrong with the sources of a spec."""
    seen: set[str] = set()
    for index, item in enumerate(given):
        place = f"spec.weights.sources[{index}]"
        try:
            source = read_source(item, model, rules, place)
        except SourceRefused as refused:
            yield refused.finding
            continue
        if source.weight.path in seen:
            yield Finding(f"{place}.name", item.name, "each weight file once")
        seen.add(source.weight.path)


def read_source(item: WeightSource, model: Model, rules: Rules, place: str) -> Source:
    """One source. `place` is its field. Raises SourceRefused."""
    weight = named(model, item.name)
    if weight is None:
        allowed = ", ".join(f"{weight.role} ({weight.path})" for weight in model.weights)
        raise SourceRefused(Finding(f"{place}.name", item.name, f"a file of {model.name}: {allowed}"))
    try:
        return _addressed(item, weight, rules)
    except ValueError as error:
        raise SourceRefused(Finding(f"{place}.url", _shown(item.url), str(error))) from None


def named(model: Model, name: str) -> Weight | None:
    """The weight file that a source's `name` means: its role, its path on the volume, or the path's last part."""
    for weight in model.weights:
        if name in {weight.role, weight.path, weight.name, weight.name.rpartition("/")[2]}:
            return weight
    return None


def wants_quantizing(weight: Weight) -> bool:
    """Whether the catalogue expects this file in FP8 alone, so that a wider one can be made into it."""
    return weight.dtypes == (Dtype.F8_E4M3,)


def wants_scales(weight: Weight) -> bool:
    """Whether the FP8 file is one with a scale a tensor, as its name says."""
    return "scaled" in weight.name


def _addressed(item: WeightSource, weight: Weight, rules: Rules) -> Source:
    parts = urlsplit(item.url)
    if parts.username or parts.password:
        raise ValueError("no user or password in a URL; put a token into the Secret that secretName names")
    scheme = parts.scheme.lower()
    common = {"sha256": item.sha256, "secret": item.secret_name, "shown": _shown(item.url)}
    if scheme in {"https", "http"}:
        _check_http(item.url, rules)
        return Source(weight, Kind.HTTP, item.url, **common)  # type: ignore[arg-type]
    if scheme == "hub":
        return Source(weight, Kind.HTTP, _hub_url(item, rules), **common)  # type: ignore[arg-type]
    if scheme in {"s3", "oss"}:
        address, region = _bucket_url(item, rules)
        return Source(weight, Kind.S3, address, region=region, **common)  # type: ignore[arg-type]
    if scheme == "pvc":
        return Source(weight, Kind.FILE, _below(parts.path), claim=_claim(parts.netloc), **common)  # type: ignore[arg-type]
    if scheme == "file" and rules.local_files and not parts.netloc:
        return Source(weight, Kind.FILE, parts.path, **common)  # type: ignore[arg-type]
    raise ValueError(_SCHEMES + (", http://" if rules.allow_http else " (http:// where the installation allows it)"))


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _check_http(url: str, rules: Rules) -> None:
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("a URL with a host")
    if parts.scheme.lower() == "http" and not rules.allow_http:
        raise ValueError("https://; http:// only where the installation allows it (chart value weights.allowHTTP)")


def _hub_url(item: WeightSource, rules: Rules) -> str:
    base = (item.hub or rules.hub).rstrip("/")
    _check_http(base, rules)
    found = _HUB.fullmatch(item.url[len("hub://") :])
    if found is None or ".." in found["path"].split("/"):
        raise ValueError("hub://OWNER/REPO/PATH or hub://OWNER/REPO@REVISION/PATH")
    return f"{base}/{found['repo']}/resolve/{found['revision'] or 'main'}/{quote(found['path'])}"


def _bucket_url(item: WeightSource, rules: Rules) -> tuple[str, str]:
    """The object's URL and the region to sign for."""
    parts = urlsplit(item.url)
    bucket, key = parts.netloc, parts.path.lstrip("/")
    if not bucket or not key:
        raise ValueError(f"{parts.scheme}://BUCKET/KEY")
    is_oss = parts.scheme.lower() == "oss"
    given = item.s3
    region = (given.region if given else None) or ("" if is_oss else "us-east-1")
    endpoint = given.endpoint if given else None
    if not endpoint:
        if is_oss and not region:
            raise ValueError("an oss:// URL with s3.endpoint or s3.region set, for example s3.region cn-hangzhou")
        endpoint = f"https://s3.oss-{region}.aliyuncs.com" if is_oss else f"https://s3.{region}.amazonaws.com"
    _check_http(endpoint, rules)
    addressing = (given.addressing if given else None) or (Addressing.VIRTUAL_HOSTED if is_oss else Addressing.PATH)
    at = urlsplit(endpoint.rstrip("/"))
    path = quote(key, safe="/-_.~")
    if addressing is Addressing.VIRTUAL_HOSTED:
        return f"{at.scheme}://{bucket}.{at.netloc}{at.path}/{path}", region
    return f"{at.scheme}://{at.netloc}{at.path}/{bucket}/{path}", region


def _claim(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name):
        raise ValueError("pvc://CLAIM/PATH")
    return name


def _below(path: str) -> str:
    relative = path.lstrip("/")
    if not relative or any(part in {"", ".", ".."} for part in relative.split("/")):
        raise ValueError("pvc://CLAIM/PATH with plain names, no '..'")
    return relative


def claims_of(sources: Sequence[Source]) -> list[str]:
    """Names of the claims that must be mounted to read these sources."""
    return sorted({source.claim for source in sources if source.claim})


def secrets_of(sources: Sequence[Source]) -> list[str]:
    """Names of the Secrets that these sources need."""
    return sorted({source.secret for source in sources if source.secret})


@dataclass(frozen=True, slots=True, repr=False)
class Credentials(credentials.Credentials):
    """What a Secret holds: a bearer token, or an access key."""

    token: str = ""


_TOKEN = ("token", "HF_TOKEN")


def credentials_from(values: Mapping[str, str]) -> Credentials:
    """Credentials from a Secret's keys, or from environment variables of the same names."""
    token = next((values[name].strip() for name in _TOKEN if values.get(name)), "")
    return Credentials(**credentials.access_key_from(values), token=token)
