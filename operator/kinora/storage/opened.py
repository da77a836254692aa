"""The store that a process was told of, opened: on a mounted claim, or in a bucket with mounted credentials."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from kinora.api import names
from kinora.api.s3store import S3Store as S3Spec
from kinora.s3.address import Bucket
from kinora.s3.client import Pace, S3Client
from kinora.s3.credentials import MountedCredentials, Provider, anonymous
from kinora.storage.broker.signer import BrokerSigner
from kinora.storage.s3 import S3Store


@dataclass(frozen=True)
class Mounts:
    """Where the pod has what the store's spec names."""

    secret: Path = Path(names.STORE_SECRET_DIR)
    ca: Path = Path(names.STORE_CA_DIR)
    token: Path = Path(names.STORE_TOKEN_DIR) / names.STORE_TOKEN_FILE
    scratch: Path | None = None
    "What is read lies here meanwhile; None: the folder for temporary files."


@asynccontextmanager
async def opened_bucket(
    spec: S3Spec,
    mounts: Mounts | None = None,
    *,
    credentials: Provider | None = None,
    pace: Pace | None = None,
    signer: BrokerSigner | None = None,
) -> AsyncIterator[S3Store]:
    """The store in the bucket, for as long as the context lasts. OSError, ssl.SSLError: the certificates' file.

    `credentials`: in the place of those that are mounted. `signer`: there are none, and it has requests signed.
    """
    at = mounts or Mounts()
    mounted = bool(spec.secret_name) and signer is None
    provider = credentials or (MountedCredentials(at.secret) if mounted else anonymous)
    tls = None
    if spec.ca_config_map is not None:
        tls = ssl.create_default_context(cafile=str(at.ca / spec.ca_config_map.key))
    async with S3Client(Bucket.of(spec), provider, tls=tls, pace=pace, signer=signer) as client:
        yield S3Store(client, scratch=at.scratch)
