"""Logging in as a service account of a test's namespace: tokens as the kubelet asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ssl
from typing import Any

from kinora.kube.client import ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import VIDEOJOB, Resource
from waiting import DEADLINE

Object = dict[str, Any]
TOKEN_REQUEST = Resource("", "v1", "serviceaccounts", "TokenRequest")


def as_token(connection: Connection, token: str) -> Connection:
    """The same server, and nobody's certificate: the token alone says who asks."""
    tls = ssl.create_default_context(cafile=connection.ca_file)
    return dataclasses.replace(
        connection, tls=tls, authorization=lambda: f"Bearer {token}", cert_file=None, key_file=None
    )


async def token(
    kube: KubeClient, namespace: str, account: str, pod: Object | None = None, *, audience: str | None = None
) -> str:
    """A token of the account as the kubelet asks for it: bound to a pod, or to nothing. `audience`: another."""
    spec: Object = {"expirationSeconds": 3600, **({"audiences": [audience]} if audience else {})}
    if pod is not None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}
    path = TOKEN_REQUEST.path(namespace, account, "token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await kube._call("POST", "create", TOKEN_REQUEST, path, body=body)
    return str(answer["status"]["token"])


async def until_authorised(client: KubeClient, namespace: str) -> None:
    """A RoleBinding is known to the authoriser a moment after it was made."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(ApiError):
                await client.list_page(VIDEOJOB, namespace)
                return
