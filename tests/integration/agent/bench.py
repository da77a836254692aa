"""A server pod without a kubelet: a Pod object, the real supervisor with the real stand-in, and the real agent here.

The agent logs in with a token of its own service account, bound to its pod, so that RBAC and the fence are met.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kinora.agent.agent import Agent, Parts
from kinora.agent.main import listeners, store_of
from kinora.agent.settings import Identity, Paths, Settings, Times
from kinora.api import names, transitions
from kinora.api.agentconfig import AgentConfig
from kinora.catalogue.load import load_catalogue
from kinora.engine import supervisor
from kinora.engine.client import ComfyClient
from kinora.engine.supervisor_client import SupervisorClient
from kinora.kube.client import ApiError, KubeClient
from kinora.kube.config import Connection
from kinora.kube.resources import POD, ROLE_BINDING, SERVICE_ACCOUNT, VIDEOJOB, Resource
from kinora.storage.broker.signer import Patience
from kinora.storage.opened import Mounts
from kinora.weights.tiny import write_demo_weights

Object = dict[str, Any]
MODEL = "wan2.1-vace-1.3b"
_TOKEN = Resource("", "v1", f"serviceaccounts/{names.AGENT_SERVICE_ACCOUNT}/token", "TokenRequest")


@dataclass
class Bench:
    """One server pod under test."""

    kube: KubeClient
    connection: Connection
    namespace: str
    root: Path
    pod: Object
    port: int
    claims: list[str] = field(default_factory=lambda: ["media"])
    drain_seconds: int = 60
    times: Times = field(default_factory=lambda: Times(weights_missing=0.1, outcome=1.0, write_retry=0.05))
    bucket: Object | None = None  # spec.artifacts.s3, where artifacts are in no folder
    broker: str = ""  # the stager that signs for the bucket, where no keys are mounted
    agent: Agent | None = None
    api_port: int | None = None  # of a proxy that the agent goes through
    model: str = MODEL
    server: str = "vace"
    live_port: int = 0  # where gateways listen to it; 0: nowhere
    _running: asyncio.Task[None] | None = None
    _supervisor: asyncio.subprocess.Process | None = None

    @property
    def settings(self) -> Settings:
        """As the pod's environment would say."""
        metadata = self.pod["metadata"]
        return Settings(
            identity=Identity(self.namespace, metadata["name"], metadata["uid"]),
            config=AgentConfig(
                modelServerName=self.server,
                model=self.model,
                **({"artifactS3": self.bucket} if self.bucket else {"artifactClaim": "artifacts"}),
                inputClaims=self.claims,
                drainSeconds=self.drain_seconds,
                artifactBroker=self.broker,
            ),
            paths=Paths(
                input=self.root / "input",
                output=self.root / "output",
                models=self.root / "models",
                artifacts=self.root / "artifacts",
                claims=self.root / "claims",
                supervisor=str(self.root / "s.sock"),
            ),
            times=self.times,
            mounts=Mounts(secret=self.root / "secret", token=self.root / "store-token", scratch=self.root),
            patience=Patience(first_pause=0.05, longest_pause=0.5),
            engine_url=f"http://127.0.0.1:{self.port}",
            listen_host="127.0.0.1",
            live=self.live_port > 0,
            live_port=self.live_port,
        )

    # --- the engine's container ---------------------------------------------------------------------------------------

    async def start_engine(self, *, step_seconds: float = 0.0, node_seconds: float = 0.0) -> None:
        """The supervisor, and under it the stand-in."""
        command = (
            f"{sys.executable} -m kinora.engine.standin --hold-file {self._hold}"
            f" --step-seconds {step_seconds} --node-seconds {node_seconds}"
        )
        arguments = ["--listen", "127.0.0.1", "--port", str(self.port)]
        for folder in ("input", "output", "temp", "models"):
            arguments += [f"--{folder}-directory", str(self.root / folder)]
        log = (self.root / "engine.log").open("ab")
        self._supervisor = await asyncio.create_subprocess_exec(
            sys.executable, supervisor.__file__, "--socket", str(self.root / "s.sock"), "--", *arguments,
            env={**os.environ, "KINORA_ENGINE_COMMAND": command}, stdout=log, stderr=log,
        )  # fmt: skip
        log.close()

    async def stop_engine(self) -> None:
        """As at the end of the pod."""
        if self._supervisor is not None and self._supervisor.returncode is None:
            self._supervisor.terminate()
            await self._supervisor.wait()

    async def engine_process(self) -> int:
        """The engine's process id."""
        found = (await SupervisorClient(str(self.root / "s.sock")).stats()).pid
        assert found, "the engine does not run"
        return found

    @property
    def _hold(self) -> Path:
        return self.root / "hold"

    def hold(self, steps: int = 0) -> None:
        """No render gets beyond so many steps, whatever time passes, until `go`."""
        self._hold.write_text(str(steps))

    def go(self) -> None:
        """Renders go on."""
        self._hold.unlink(missing_ok=True)

    # --- the agent ----------------------------------------------------------------------------------------------------

    async def start_agent(self) -> None:
        """A new agent in this process."""
        started = asyncio.get_running_loop().create_future()
        self._running = asyncio.create_task(self._run_agent(started))
        await asyncio.wait({self._running, started}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            self._running.result()

    async def _run_agent(self, started: asyncio.Future[None]) -> None:
        settings = self.settings
        model = load_catalogue().get(self.model)
        assert model is not None
        async with (
            KubeClient(await self._login(), user_agent="kinora-agent") as client,
            ComfyClient(settings.engine_url) as engine,
            store_of(settings) as store,
        ):
            self.agent = Agent(
                Parts(
                    settings=settings,
                    client=client,
                    engine=engine,
                    supervisor=SupervisorClient(settings.paths.supervisor),
                    store=store,
                    model=model,
                )
            )
            async with listeners(settings, client, self.agent):
                started.set_result(None)
                await self.agent.run()

    async def _login(self) -> Connection:
        metadata = self.pod["metadata"]
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": 3600,
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]},
            },
        }
        token = (await self.kube.create(_TOKEN, self.namespace, request))["status"]["token"]
        host = self.connection.host if self.api_port is None else f"https://127.0.0.1:{self.api_port}"
        return replace(
            self.connection,
            host=host,
            tls=_without_certificate(self.connection),
            authorization=lambda: f"Bearer {token}",
        )

    async def kill_agent(self) -> None:
        """As kill -9: nothing is written, nothing tidied up."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def drained(self, seconds: float = 60) -> None:
        """SIGTERM, and wait for the agent's end."""
        assert self.agent is not None
        assert self._running is not None
        self.agent.drain()
        await asyncio.wait_for(self._running, seconds)

    def agent_has_ended(self) -> bool:
        """Whether it has."""
        return self._running is not None and self._running.done()

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def bind(self, job: Object, attempt_status: Object | None = None) -> Object:
        """Create the job, if it is new, and bind it to this pod as the operator does."""
        if "uid" not in job["metadata"]:
            job = await self.kube.create(VIDEOJOB, self.namespace, job)
        metadata, pod = job["metadata"], self.pod["metadata"]
        attempt = int(job["status"].get("attempt") or 0) + 1
        assignment = {
            "podName": pod["name"],
            "podUID": pod["uid"],
            "promptID": names.prompt_id(metadata["uid"], attempt),
        }
        status = {**transitions.bound(job, assignment, dt.datetime.now(dt.UTC)), **(attempt_status or {})}
        return await self.kube.patch(
            VIDEOJOB, self.namespace, metadata["name"], {"status": status}, subresource="status"
        )

    async def patch(self, name: str, body: Object) -> None:
        """Change a job as its user does."""
        await self.kube.patch(VIDEOJOB, self.namespace, name, body)

    async def status_when(self, name: str, holds: Callable[[Object], bool], seconds: float = 60) -> Object:
        """The job's status as soon as it is as wanted."""
        return (await self._when(VIDEOJOB, name, lambda job: holds(job["status"]), seconds))["status"]

    async def condition_when(self, reason: str, seconds: float = 30, *, since: str | None = None) -> Object:
        """The pod's EngineReady as soon as it has that reason, or had it at any time after version `since`."""
        name = self.pod["metadata"]["name"]
        pod = await self._when(POD, name, lambda pod: _condition(pod).get("reason") == reason, seconds, since)
        return _condition(pod)

    async def pod_version(self) -> str:
        """The pod's version now: what comes after it can be waited for, however briefly it is so."""
        pod = await self.kube.get(POD, self.namespace, self.pod["metadata"]["name"])
        return str(pod["metadata"]["resourceVersion"])

    async def fast_when(self, status: str, seconds: float = 30) -> Object:
        """The pod's FastReady as soon as it has that status."""
        pod = await self._when(
            POD,
            self.pod["metadata"]["name"],
            lambda pod: _condition(pod, names.CONDITION_FAST_READY).get("status") == status,
            seconds,
        )
        return _condition(pod, names.CONDITION_FAST_READY)

    async def _when(
        self,
        resource: Resource,
        name: str,
        holds: Callable[[Object], bool],
        seconds: float,
        since: str | None = None,
    ) -> Object:
        selector = f"metadata.name={name}"
        latest: Object | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    version, since = since, None
                    if version is None:
                        items, version = await self.kube.list(resource, self.namespace, field_selector=selector)
                        latest = items[0] if items else None
                        if latest is not None and holds(latest):
                            return latest
                    async for event in self.kube.stream(
                        resource, self.namespace, resource_version=version, field_selector=selector
                    ):
                        if event["type"] in ("ADDED", "MODIFIED"):
                            latest = event["object"]
                            if holds(latest):
                                return latest
        except TimeoutError:
            log = (self.root / "engine.log").read_text(errors="replace")[-2000:]
            shown = latest and latest.get("status")
            raise AssertionError(f"{resource.kind} {name} is not as wanted after {seconds} s: {shown}\n{log}") from None


def _condition(pod: Object, kind: str = names.CONDITION_ENGINE_READY) -> Object:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), {})


def _without_certificate(connection: Connection) -> Any:
    """The server's CA, but not the administrator's client certificate, which would rule over the token."""
    import ssl

    if connection.tls is None:
        return None
    context = ssl.create_default_context()
    for der in connection.tls.get_ca_certs(binary_form=True):
        context.load_verify_locations(cadata=der)
    return context


class Cable:
    """A TCP way to the API server that can be cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def lay(self) -> int:
        """Listen; the port."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Every connection breaks, and no new one stands."""
        self._cut = True
        for writer in tuple(self._writers):
            writer.transport.abort()

    def mend(self) -> None:
        """As before."""
        self._cut = False

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        ends = {writer, far_writer}
        if self._cut:  # meanwhile
            for end in ends:
                end.transport.abort()
            return
        self._writers |= ends
        with suppress(OSError):
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
        for end in ends:
            end.close()
        self._writers -= ends


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def make_pod(kube: KubeClient, namespace: str) -> Object:
    """The pod object, its account and the account's role, as the operator makes them."""
    account = names.AGENT_SERVICE_ACCOUNT
    for resource, body in (
        (SERVICE_ACCOUNT, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}),
        (
            ROLE_BINDING,
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": account},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": names.AGENT_CLUSTER_ROLE,
                },
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
            },
        ),
    ):
        with suppress(ApiError):
            await kube.create(resource, namespace, body)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"vace-0-{secrets.token_hex(4)}"},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "agent", "image": "none"}],
        },
    }
    return await kube.create(POD, namespace, pod)


def make_folders(root: Path, *, weights: bool = True, model_name: str = MODEL) -> None:
    """The pod's volumes."""
    for folder in ("input", "output", "temp", "models", "artifacts", "claims/media"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    model = load_catalogue().get(model_name)
    assert model is not None
    if weights:
        write_demo_weights(model, root / "models")
