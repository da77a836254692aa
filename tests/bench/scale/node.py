"""One process of hollow nodes: kubelet and scheduler for its share of the server pods, and their real agents.

Each agent has its own token, bound to its pod, and its own watch; the connections are of one pool. Commands come as
JSON lines on stdin and are answered on stdout: pace, release, report, watch, plain, status, quit (see Node.obey).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from bench.scale import kubelet
from bench.scale.hollow import HollowEngine, HollowMedia, HollowSupervisor, HollowWeights, Ledger, MemoryStore, Pace
from bench.scale.plain import PlainPods
from bench.scale.rawwatch import RawWatch
from kinora.agent.agent import Agent, Parts, selection
from kinora.agent.metrics import Metrics
from kinora.agent.settings import Identity, Paths, Settings
from kinora.api import agentconfig
from kinora.api.agentconfig import AgentConfig
from kinora.api.names import COMPONENT_SERVER, CONTAINER_AGENT, LABEL_COMPONENT
from kinora.catalogue.load import load_catalogue
from kinora.catalogue.model import Model
from kinora.kube.client import ApiError, KubeClient, UnreachableError
from kinora.kube.config import Connection, connect
from kinora.kube.resources import POD, VIDEOJOB
from kinora.kube.watch import Reflector

log = logging.getLogger(__name__)
Object = dict[str, Any]
SIDE_BY_SIDE = 16  # pods that are brought up at the same time


def share_of(name: str, shares: int) -> int:
    """Which process has the pod: a function of its name, so that nobody need agree on it."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % shares


class Server:
    """One server pod on this node."""

    def __init__(self, pod: Object, secret: str) -> None:
        self.pod = pod
        self.secret = secret
        self.agent: Agent | None = None
        self.task: asyncio.Task[None] | None = None
        self.ready = False


class Node:
    """All that a process of hollow nodes does."""

    def __init__(self, connection: Connection, arguments: argparse.Namespace, folder: Path) -> None:
        self._connection = connection
        self._share, self._shares = arguments.share, arguments.shares
        self._namespace: str = arguments.namespace
        self._nodes: list[str] = arguments.nodes.split(",")
        self._folder = folder
        self._tls = kubelet.tls_without_certificate(connection)
        self._pool = aiohttp.TCPConnector(ssl=self._tls, limit=0, keepalive_timeout=75)
        self._client = KubeClient(connection, user_agent="bench-node")
        self._servers: dict[str, Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Semaphore(SIDE_BY_SIDE)
        self._pace = Pace(arguments.render_seconds)
        self._ledger = Ledger()
        self._store = MemoryStore(self._ledger)
        self._metrics = Metrics()
        self._watching = False  # bare watches in the agents' place
        self._plain: PlainPods | None = None

    # --- pods ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until stdin says quit, or ends."""
        async with self._client:
            reflector = Reflector(
                self._client,
                POD,
                self._take,
                self._see,
                namespace=self._namespace,
                label_selector=f"{LABEL_COMPONENT}={COMPONENT_SERVER}",
            )
            following = asyncio.create_task(reflector.run())
            try:
                await self._commands()
            finally:
                for task in (following, *self._tasks, *(one.task for one in self._servers.values() if one.task)):
                    task.cancel()
                await asyncio.gather(following, *self._tasks, return_exceptions=True)
                await self._pool.close()

    def _take(self, listed: list[Object]) -> None:
        for one in listed:
            self._see("ADDED", one)

    def _see(self, kind: str, pod: Object) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if share_of(name, self._shares) != self._share:
            return
        server = self._servers.get(uid)
        if kind == "DELETED":
            if server is not None and server.task is not None:
                server.task.cancel()
            self._servers.pop(uid, None)
        elif pod["metadata"].get("deletionTimestamp"):
            if server is not None:
                self._spawn(self._end(server))
        elif server is None:
            self._servers[uid] = Server(pod, "")
            self._spawn(self._start(self._servers[uid]))
        elif kubelet.engine_ready(pod) and not server.ready:
            server.ready = True
            self._spawn(self._say_ready(pod))

    async def _start(self, server: Server) -> None:
        async with self._turn:
            pod = server.pod
            if not pod["spec"].get("nodeName"):
                await kubelet.bind(self._client, pod, self._nodes[share_of(pod["metadata"]["uid"], len(self._nodes))])
            server.pod = await kubelet.say_running(self._client, pod)
            server.secret = await kubelet.token(self._client, pod)
        self._begin(server)

    def _begin(self, server: Server) -> None:
        work = self._watch_for(server) if self._watching else self._agent_for(server)
        server.task = asyncio.create_task(work)

    async def _say_ready(self, pod: Object) -> None:
        if not kubelet.is_ready(pod):
            await kubelet.say_ready(self._client, pod)

    async def _end(self, server: Server) -> None:
        """The kubelet's side of a graceful deletion."""
        if server.agent is not None and server.task is not None:
            server.agent.drain()
            await asyncio.wait({server.task})
        metadata = server.pod["metadata"]
        await self._client.delete(POD, self._namespace, metadata["name"], uid=metadata["uid"], grace_seconds=0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except ApiError as error:
                if not error.is_not_found:
                    log.warning("%s", error)
            except UnreachableError as error:
                log.warning("%s", error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- agents -------------------------------------------------------------------------------------------------------

    def _client_of(self, server: Server) -> KubeClient:
        connection = kubelet.as_bearer(self._connection, self._tls, server.secret)
        return KubeClient(connection, user_agent="kinora-agent", connector=self._pool)

    async def _agent_for(self, server: Server) -> None:
        settings = self._settings(server.pod)
        model = load_catalogue().get(settings.config.model)
        assert model is not None
        async with self._client_of(server) as client:
            owner = server.pod["metadata"]["uid"]
            engine = HollowEngine(settings.paths.output, _classes(model), self._pace, self._ledger, owner)
            parts = Parts(
                settings=settings,
                client=client,
                engine=engine,
                supervisor=HollowSupervisor(engine),
                store=self._store,
                model=model,
                media=HollowMedia(),
                weights=HollowWeights(),
                metrics=self._metrics,
            )
            server.agent = Agent(parts)
            try:
                await server.agent.run()
            except Exception:  # the harness's count of ready agents will tell
                log.exception("agent of %s", server.pod["metadata"]["name"])

    def _settings(self, pod: Object) -> Settings:
        """As the agent's container would read them from its environment."""
        agent = next(
            one
            for one in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or []))
            if one["name"] == CONTAINER_AGENT
        )
        config = next(one["value"] for one in agent["env"] if one["name"] == agentconfig.CONFIG_VARIABLE)
        metadata = pod["metadata"]
        root = self._folder / metadata["uid"]
        return Settings(
            identity=Identity(
                metadata["namespace"], metadata["name"], metadata["uid"], pod["spec"].get("nodeName", "")
            ),
            config=AgentConfig.model_validate_json(config),
            paths=Paths(
                input=root / "input",
                output=root / "output",
                models=root / "models",
                artifacts=root / "artifacts",
                claims=root / "claims",
                supervisor=str(root / "none"),
            ),
        )

    async def _watch_for(self, server: Server) -> None:
        """The agent's watch alone, read and thrown away."""
        uid = server.pod["metadata"]["uid"]
        async with self._client_of(server) as client:
            await RawWatch(client, VIDEOJOB, self._namespace, selection(uid)).run()

    async def _switch(self, *, watching: bool) -> None:
        self._watching = watching
        tasks = [server.task for server in self._servers.values() if server.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers.values():
            server.agent = None
            self._begin(server)

    # --- commands -----------------------------------------------------------------------------------------------------

    async def _commands(self) -> None:
        reader = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            if command["do"] == "quit":
                return
            answer = await self.obey(command)
            print(json.dumps(answer), flush=True)

    async def obey(self, command: Object) -> Object:
        """One command of the driver."""
        match command["do"]:
            case "status":
                ready = sum(one.ready for one in self._servers.values())
                return {"agents": len(self._servers), "ready": ready, "held": self._pace.waiting}
            case "pace":
                self._pace.seconds = command["seconds"]
            case "hold":
                self._pace.hold()
            case "release":
                return {"released": self._pace.release(command["count"])}
            case "report":
                return self._report(Path(command["path"]))
            case "watch":
                await self._switch(watching=command["on"])
            case "plain":
                await self._run_plain(command["namespace"] if command["on"] else None)
            case unknown:
                return {"error": f"unknown command {unknown!r}"}
        return {}

    def _report(self, path: Path) -> Object:
        """What happened since the last report, as a file; the ledger begins anew."""
        ledger = self._ledger
        path.write_text(json.dumps({"accepted": ledger.accepted, "again": ledger.again, "published": ledger.published}))
        for part in (ledger.accepted, ledger.again, ledger.published):
            part.clear()
        self._store.clear()
        return {"pods": {one.pod["metadata"]["uid"]: one.secret for one in self._servers.values()}}

    async def _run_plain(self, namespace: str | None) -> None:
        if self._plain is not None:
            await self._plain.stop()
            self._plain = None
        if namespace is not None:
            self._plain = PlainPods(
                self._client,
                namespace,
                self._nodes,
                mine=lambda name: share_of(name, self._shares) == self._share,
                render=self._pace.render,
            )
            await self._plain.start()


def _classes(model: Model) -> dict[str, Any]:
    return {name: {} for name in model.required_node_classes}


async def _main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="kinora-scale-") as folder:
        node = Node(connect(kubeconfig=os.environ["KUBECONFIG"]), arguments, Path(folder))
        with suppress(asyncio.CancelledError):
            await node.run()


def main() -> None:
    """Entry point; the driver starts it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--nodes", required=True)
    parser.add_argument("--share", type=int, required=True)
    parser.add_argument("--shares", type=int, required=True)
    parser.add_argument("--render-seconds", type=float, required=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
