"""The bucket's side of `kinora fetch` and `kinora artifacts`: where it is by the ModelServers, and whose keys are used.

The user's own: what is in the environment. The Secret of the ModelServer is not read: whoever may read VideoJobs need
not be one who may read Secrets.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from kinora.api.intake import artifact_store
from kinora.api.s3store import S3Store
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.resources import CONFIGMAP, MODELSERVER
from kinora.s3.address import Bucket
from kinora.s3.client import Pace, S3Client
from kinora.s3.credentials import Credentials, access_key_from
from kinora.s3.faults import S3Error

Bring = Callable[[Callable[[bytes], None]], Awaitable[None]]


class BucketError(Exception):
    """Why the object could not be read, and what to do."""


@dataclass(frozen=True)
class Reached:
    """A bucket as it is reached from here, with the user's own keys."""

    client: S3Client
    credentials: Credentials

    def words(self, error: S3Error, uri: str) -> str:
        """What to tell of a refusal."""
        return _words(error, uri, self.credentials, self.client.bucket)


@asynccontextmanager
async def reached(
    client: KubeClient, namespace: str, uri: str, environment: Mapping[str, str], endpoint: str | None
) -> AsyncIterator[Reached]:
    """The bucket of an `s3://` uri. Raises BucketError, ApiError.

    `endpoint`: where the bucket is reached from here; else the store's public one, or its own.
    """
    spec = await _spec(client, namespace, uri, environment)
    told = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    bucket = _reached(Bucket.of(spec), told or spec.public_endpoint)
    tls = await _tls(client, namespace, spec, environment)
    credentials = Credentials(**access_key_from(environment))
    async with S3Client(bucket, lambda: credentials, tls=tls, pace=Pace(tries=4)) as s3:
        yield Reached(s3, credentials)


@asynccontextmanager
async def opened(
    client: KubeClient, namespace: str, uri: str, environment: Mapping[str, str], endpoint: str | None
) -> AsyncIterator[Bring]:
    """What brings the object of an `s3://` uri. Raises BucketError, here and when it is called; ApiError."""
    async with reached(client, namespace, uri, environment, endpoint) as bucket:

        async def bring(write: Callable[[bytes], None]) -> None:
            try:
                await bucket.client.read(urlsplit(uri).path.lstrip("/"), write)
            except S3Error as error:
                raise BucketError(bucket.words(error, uri)) from None

        yield bring


def _reached(bucket: Bucket, endpoint: str | None) -> Bucket:
    """The bucket at this endpoint, signed for its own region still. An address, or this machine, has it in the path."""
    if not endpoint:
        return bucket
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BucketError(f"--endpoint is {endpoint}; allowed: https:// or http://, a host, and a port where needed")
    host = parts.hostname
    local = host == "localhost" or ":" in host or host.replace(".", "").isdigit()
    base = f"{parts.scheme}://{parts.netloc}"
    return replace(bucket, endpoint=base, virtual_hosted=bucket.virtual_hosted and not local)


async def _spec(client: KubeClient, namespace: str, uri: str, environment: Mapping[str, str]) -> S3Store:
    """As the ModelServer tells whose store the object is in; one that is gone leaves what the environment tells."""
    servers, _ = await client.list(MODELSERVER, namespace)
    found = [
        (store.root, server)
        for server in servers
        if (store := artifact_store(server)) is not None and uri.startswith(store.root)
    ]
    for _, server in sorted(found, key=lambda one: len(one[0]), reverse=True):
        return S3Store.model_validate(server["spec"]["artifacts"]["s3"])
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    return S3Store.model_validate({"bucket": urlsplit(uri).netloc, "region": region})


async def _tls(
    client: KubeClient, namespace: str, spec: S3Store, environment: Mapping[str, str]
) -> ssl.SSLContext | None:
    """Trust in what the environment names, or in what the store's own spec does, where it may be read."""
    if environment.get("AWS_CA_BUNDLE"):
        try:
            return ssl.create_default_context(cafile=environment["AWS_CA_BUNDLE"])
        except (OSError, ssl.SSLError) as error:
            raise BucketError(f"AWS_CA_BUNDLE cannot be used: {error.strerror or 'no certificates'}") from None
    if spec.ca_config_map is None:
        return None
    try:
        told = await client.find(CONFIGMAP, namespace, spec.ca_config_map.name)
        return ssl.create_default_context(cadata=((told or {}).get("data") or {})[spec.ca_config_map.key])
    except (ApiError, KeyError, ssl.SSLError):
        name = f"ConfigMap {spec.ca_config_map.name}, key {spec.ca_config_map.key}"
        raise BucketError(f"the store's certificates ({name}) cannot be read; set AWS_CA_BUNDLE") from None


def _words(error: S3Error, uri: str, credentials: Credentials, bucket: Bucket) -> str:
    if error.status == 403 and not credentials.access_key:
        return (
            f"{uri}: the bucket is not public; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys that may read it"
        )
    if error.status == 0:
        return f"{error}, at {bucket.endpoint}; where only the cluster reaches it, forward a port and give --endpoint"
    return f"{uri}: {error}"
