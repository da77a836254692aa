"""Where a bucket is: `spec.artifacts.s3` read into URLs. Pure.

Addressing: AWS and OSS name the bucket in the host (OSS takes nothing else), most servers of one's own in the path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from kinora.api.s3store import Addressing, S3Store, key_prefix, s3_root
from kinora.s3.sigv4 import encoded_query

DEFAULT_REGION: Final = "us-east-1"
# The hosts of AWS and OSS tell their region; OSS's has `-internal` behind it within Alibaba Cloud's own network.
_AWS: Final = re.compile(r"s3[.-](?:dualstack\.)?(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?")
_OSS: Final = re.compile(r"(s3\.)?oss-(?P<region>[a-z0-9-]+?)(-internal)?\.aliyuncs\.com")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and how it is reached. `endpoint`, `public_endpoint`: scheme and host; keys begin with `prefix`."""

    name: str
    endpoint: str
    region: str
    virtual_hosted: bool
    public_endpoint: str
    prefix: str = ""

    @classmethod
    def of(cls, spec: S3Store) -> Bucket:
        """What is not said follows from what is."""
        host = urlsplit(spec.endpoint or "").hostname or ""
        known = _AWS.fullmatch(host) or _OSS.fullmatch(host)
        region = spec.region or (known["region"] if known else DEFAULT_REGION)
        endpoint = (spec.endpoint or f"https://s3.{region}.amazonaws.com").rstrip("/")
        hosted = (known is not None or not spec.endpoint) and "." not in spec.bucket
        if spec.addressing is not None:
            hosted = spec.addressing is Addressing.VIRTUAL_HOSTED
        public = (spec.public_endpoint or endpoint).rstrip("/")
        return cls(spec.bucket, endpoint, region, hosted, public, key_prefix(spec.prefix))

    @property
    def root(self) -> str:
        """`s3://bucket/prefix/`, as it begins the uri of everything in it."""
        return s3_root(self.name, self.prefix)

    def url(self, key: str = "", query: Iterable[tuple[str, str]] = (), *, public: bool = False) -> str:
        """The URL of a whole key (with its prefix), or of the bucket, encoded as it is signed and sent."""
        at = urlsplit(self.public_endpoint if public else self.endpoint)
        path = quote(key, safe="/-_.~")
        where = f"{self.name}.{at.netloc}/{path}" if self.virtual_hosted else f"{at.netloc}/{self.name}/{path}"
        text = encoded_query(query)
        whole = f"{at.scheme}://{where if key or self.virtual_hosted else where.removesuffix('/')}"
        return f"{whole}?{text}" if text else whole
