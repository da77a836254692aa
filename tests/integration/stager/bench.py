"""Stagers without a kubelet: each a process with a token bound to a Pod object, and a folder as its artifact claim."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from integration.tokens import as_token, token, until_authorised
from kinora.api.intake import inputs_condition
from kinora.api.stagerconfig import CONFIG_VARIABLE
from kinora.controller.stager.desired import role_binding, service_account
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import MODELSERVER, POD, ROLE_BINDING, SERVICE_ACCOUNT, VIDEOJOB
from kinora_cluster import ROOT
from ports import free_port
from rawserver import Server
from waiting import model_server, video_job, wait_for

Object = dict[str, Any]
PHOTO = (ROOT / "examples/inputs/coffee.jpg").read_bytes()
CLIP = (ROOT / "examples/inputs/bunny.mp4").read_bytes()
PROGRAM = """
import asyncio, os, sys
from dataclasses import replace
from pathlib import Path
from kinora.kube.config import connect
from kinora.stager.main import serve_until_told
from kinora.stager.settings import Times, settings_from
from kinora.storage.opened import Mounts

found = settings_from(os.environ)
settings = replace(
    found, artifacts=Path(sys.argv[1]), listen_host="127.0.0.1", listen_port=int(sys.argv[2]),
    store_port=int(sys.argv[3]), times=Times(retry_first=0.1, retry_limit=0.5, sweep=0.5),
    mounts=Mounts(secret=Path(sys.argv[1]) / "secret"), url_seconds=int(sys.argv[4]),
)
asyncio.run(serve_until_told(settings, connect(os.environ["KUBECONFIG"])))
"""


@dataclass
class StagerBench:
    """A namespace with a ModelServer whose claim `artifacts` is a folder here."""

    kube: KubeClient
    connection: Connection
    namespace: str
    web: Server
    root: Path
    limits: Object = field(default_factory=dict)
    ports: list[int] = field(default_factory=list)
    store_ports: list[int] = field(default_factory=list)
    upload_seconds: int = 48 * 3600
    url_seconds: int = 900  # of the URLs that it signs for agents
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def prepare(self, *, with_server: bool = True) -> None:
        """The account, its role, a pod for tokens, and a ModelServer."""
        for resource, body in ((SERVICE_ACCOUNT, service_account), (ROLE_BINDING, role_binding)):
            with suppress(ApiError):  # the operator was faster
                await self.kube.create(resource, self.namespace, body(self.namespace))
        self.kubeconfig = self.root / "kubeconfig"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "stager"},
            "spec": {
                "serviceAccountName": "kinora-stager",
                "automountServiceAccountToken": False,
                "containers": [{"name": "stager", "image": "kinora:test"}],
            },
        }
        made = await self.kube.create(POD, self.namespace, pod)
        text = await token(self.kube, self.namespace, "kinora-stager", made)
        async with KubeClient(as_token(self.connection, text)) as client:
            await until_authorised(client, self.namespace)
        self.token = text
        self.kubeconfig.write_text(json.dumps(_kubeconfig(self.connection, text)))
        if with_server:
            await self.kube.create(MODELSERVER, self.namespace, model_server())

    def store(self, claim: str = "artifacts") -> Path:
        """The folder that is the claim."""
        folder = self.root / claim
        folder.mkdir(exist_ok=True)
        return folder

    def url(self, path: str) -> str:
        """The URL of a path of the web server, with a signature that must never be told."""
        return f"http://127.0.0.1:{self.web.port}{path}?Signature=secret"

    async def start(
        self, claim: str = "artifacts", s3: Object | None = None, *, store_port: int | None = None
    ) -> asyncio.subprocess.Process:
        """A stager of the claim, or of the bucket; then the folder holds its credentials."""
        config = {
            **({"artifactS3": s3} if s3 else {"artifactClaim": claim}),
            "allow": {"networks": ["127.0.0.1/32"], "ports": [80, 443, self.web.port]},
            "limits": {"idleSeconds": 10, **self.limits},
            "uploadSeconds": self.upload_seconds,
        }
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "KINORA_NAMESPACE": self.namespace,
            CONFIG_VARIABLE: json.dumps(config),
        }
        self.ports.append(free_port())
        self.store_ports.append(store_port or free_port())
        log = (self.root / f"stager-{len(self.processes)}.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(self.store(claim)), str(self.ports[-1]), str(self.store_ports[-1]),
            str(self.url_seconds), env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        log.close()
        self.processes.append(process)
        return process

    async def close(self) -> None:
        """End every process."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def says(self, path: str, words: str, index: int = -1) -> None:
        """Wait until that stager answers with these words on its own port: `ok` on /readyz, a count on /metrics."""
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self.ports[index]}{path}") as answer:
                        if words in await answer.text():
                            return
                await asyncio.sleep(0.02)  # its port is all that it shows

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def ask(self, name: str = "job", **spec: Any) -> Object:
        """Create a job; by default one that sets the photograph at /photo.jpg in motion."""
        given = {"task": "ImageToVideo", "inputs": {"image": {"url": self.url("/photo.jpg")}}, **spec}
        return await self.kube.create(VIDEOJOB, self.namespace, video_job(name, **given))

    async def ask_raw(self, name: str, workflow: Object) -> Object:
        """Create a job with a graph of its own."""
        made = video_job(name, workflow=workflow)
        made["spec"] = {key: made["spec"][key] for key in ("model", "workflow")}
        return await self.kube.create(VIDEOJOB, self.namespace, made)

    def uploaded(self, key: str, content: bytes) -> None:
        """An upload of the namespace, as `Source.upload` names it."""
        path = self.store() / "uploads" / self.namespace / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    async def told(
        self, name: str = "job", status: str = "True", deadline: float = 60, *, since: str | None = None
    ) -> Object:
        """The job, once its InputsReady has this status, or as it had it after version `since`."""
        return await wait_for(
            self.kube,
            VIDEOJOB,
            self.namespace,
            name,
            lambda job: bool(job) and inputs_condition(job).get("status") == status,
            deadline,
            since=since,
        )

    def objects(self, claim: str = "artifacts") -> list[str]:
        """The names of the inputs that are in the store."""
        folder = self.store(claim) / "inputs"
        return (
            sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
            if folder.is_dir()
            else []
        )

    def drafts(self, claim: str = "artifacts") -> list[Path]:
        """What is being written, or was left behind."""
        return sorted((self.store(claim) / "inputs").glob(".*"))


def _kubeconfig(connection: Connection, text: str) -> Object:
    cluster = {"server": connection.host, "certificate-authority": connection.ca_file}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "stager", "user": {"token": text}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "stager"}}],
        "current-context": "it",
    }
