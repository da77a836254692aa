"""The weights Job's process: holds the volume's Lease, fetches, and tells how far it is by a condition on its own pod.

It is fenced as an agent is: of the cluster it writes that condition and that Lease. What it does to the volume is
fetch.py's.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kinora.api import agentconfig, names, reasons
from kinora.api.modelserver import WeightFileStatus
from kinora.api.transitions import rfc3339
from kinora.api.weightsjob import CONFIG_VARIABLE, WeightsConfig, WeightsProgress
from kinora.catalogue.model import Model
from kinora.kube.client import STRATEGIC, ApiError, KubeClient, UnreachableError
from kinora.kube.config import connect
from kinora.kube.election import Terms
from kinora.kube.lease import LeaseHolder, LeaseLostError, Listeners
from kinora.kube.resources import POD
from kinora.weights.faults import FetchFault, Permanent, Transient, exit_code
from kinora.weights.fetch import Phase, Progress, Request, fetch
from kinora.weights.plan import Rate
from kinora.weights.secrets import read_secrets
from kinora.weights.sources import DEFAULT_HUB, Rules, SourceRefused, read_sources, secrets_of

log = logging.getLogger(__name__)
_AGAIN = 3  # the exit code after which the Job tries again
_REASONS = {
    Phase.LOOKING: reasons.WEIGHTS_LOOKING,
    Phase.FETCHING: reasons.WEIGHTS_FETCHING,
    Phase.QUANTIZING: reasons.WEIGHTS_QUANTIZING,
    Phase.VERIFIED: reasons.WEIGHTS_PRESENT,
}


@dataclass(frozen=True)
class Settings:
    """Which pod this is, what it is told, and where things are mounted. Seconds between writes of the condition."""

    config: WeightsConfig
    namespace: str
    pod_name: str
    pod_uid: str
    root: Path = Path(names.MODELS_DIR)
    secrets: Path = Path(names.SECRETS_DIR)
    claims: Path = Path(names.SOURCE_CLAIMS_DIR)
    tell_seconds: float = 5.0
    # Longer than an operator's: another Job takes over no sooner, and nothing waits for it that is in a hurry.
    lease_terms: Terms = field(default_factory=lambda: Terms(duration=30.0, renew=20.0, retry=8.0))


def settings_from(environment: Mapping[str, str]) -> Settings:
    """The settings of a weights Job's pod. Raises SystemExit with the variable that is wrong."""
    try:
        config = WeightsConfig.model_validate_json(environment.get(CONFIG_VARIABLE, ""))
    except ValueError as error:
        raise SystemExit(f"kinora weights-job: {CONFIG_VARIABLE}: {error}") from None

    def must(variable: str) -> str:
        value = environment.get(variable, "")
        if not value:
            raise SystemExit(f"kinora weights-job: {variable} is not set")
        return value

    return Settings(
        config,
        namespace=must(agentconfig.NAMESPACE_VARIABLE),
        pod_name=must(agentconfig.POD_NAME_VARIABLE),
        pod_uid=must(agentconfig.POD_UID_VARIABLE),
    )


def run() -> int:
    """Run the Job's pod to its end. The exit code is what the Job's failure policy reads."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.umask(0o002)  # agents and engines share the volume by its group
    return asyncio.run(_serve(settings_from(os.environ)))


async def _serve(settings: Settings) -> int:
    async with KubeClient(connect(), user_agent="kinora-weights") as client:
        work = asyncio.ensure_future(fill(client, settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            log.info("stopped; what has landed is kept")
        except Exception:  # a surprise must not read as "of no use", which is what Python's own exit code means here
            log.exception("unexpected")
        return _AGAIN


async def fill(client: KubeClient, settings: Settings) -> int:
    """Fill the volume, telling how far it is. The exit code."""
    teller = Teller(client, settings)
    telling = asyncio.create_task(teller.run())
    lease_name = names.weights_lease_name(settings.config.claim)
    lease = LeaseHolder(
        client,
        settings.namespace,
        lease_name,
        settings.pod_name,
        terms=settings.lease_terms,
        tell=Listeners(
            waiting=teller.wait_for,
            trouble=lambda words: teller.troubled(f"the Lease {lease_name}: {words}"),
        ),
    )
    try:
        await _filled(lease, settings, teller)
        teller.done()
        code = 0
    except FetchFault as fault:
        log.error("%s", fault)
        teller.failed(str(fault))
        code = exit_code(fault)
    finally:
        await teller.close(telling)
    return code


async def _filled(lease: LeaseHolder, settings: Settings, teller: Teller) -> None:
    """The volume is filled under its Lease: once that is lost, another may write the volume."""

    async def fetched() -> None:
        teller.begin()
        await fetch(_request(settings), teller.progress)

    try:
        await lease.hold(fetched)
    except LeaseLostError as error:
        raise Transient(f"{error}; what has landed is kept") from None


def _request(settings: Settings) -> Request:
    config = settings.config
    model = Model.model_validate(config.entry)
    rules = Rules(allow_http=config.allow_http, hub=config.hub or DEFAULT_HUB)
    try:
        sources = read_sources(config.sources, model, rules)
    except SourceRefused as refused:
        raise Permanent(str(refused)) from None
    return Request(
        model=model,
        root=settings.root,
        sources=tuple(sources),
        level=config.verify,
        quantize=config.quantize,
        credentials=read_secrets(secrets_of(sources), settings.secrets, {}),
        allow_http=config.allow_http,
        claims=settings.claims,
        workers=min(4, os.cpu_count() or 1),
    )


@dataclass
class Teller:
    """Writes the pod's condition: at once when its reason changes to something final, else every few seconds."""

    client: KubeClient
    settings: Settings
    progress: Progress = field(default_factory=Progress)
    _begun: bool = False
    _reason: str = ""
    _words: str = ""
    _since: str = ""
    _was: str = ""
    _written: tuple[str, str] | None = None
    _rate: Rate = field(default_factory=Rate)

    def wait_for(self, holder: str) -> None:
        """Another pod has the volume."""
        self._reason, self._words = reasons.WEIGHTS_WAITING, f"{holder} writes the volume"

    def troubled(self, words: str) -> None:
        """What keeps it from beginning."""
        if not self._begun:
            self._reason, self._words = reasons.WEIGHTS_WAITING, words

    def begin(self) -> None:
        """The volume is this pod's."""
        self._begun, self._reason, self._words = True, "", ""

    def done(self) -> None:
        """Every file is right."""
        self._reason, self._words = reasons.WEIGHTS_PRESENT, ""

    def failed(self, words: str) -> None:
        """It ends without."""
        self._reason, self._words = reasons.WEIGHTS_FAILED, words

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._tell()
            await asyncio.sleep(self.settings.tell_seconds)

    async def close(self, telling: asyncio.Task[None]) -> None:
        """The last word."""
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        for pause in (0.5, 2.0, 0.0):
            if await self._tell():
                return
            await asyncio.sleep(pause)

    async def _tell(self) -> bool:
        progress = self.progress
        self._rate.see(progress.bytes_done, time.monotonic())
        waits = self._reason == reasons.WEIGHTS_WAITING and not progress.bytes_total
        final = self._reason in {reasons.WEIGHTS_PRESENT, reasons.WEIGHTS_FAILED}
        reason = self._reason if waits or final else _REASONS[progress.phase]
        if reason == reasons.WEIGHTS_PRESENT and not final:
            reason = reasons.WEIGHTS_LOOKING
        message = WeightsProgress(
            bytes_done=progress.bytes_done,
            bytes_total=progress.bytes_total,
            rate=0 if final else int(self._rate.value),
            file=progress.file,
            message=self._words if waits or final else "",
            files=[WeightFileStatus(name=name, state=state) for name, state in progress.files.items()],
        ).to_message()
        if self._written == (reason, message):
            return True
        with suppress(ApiError, UnreachableError):
            await self._write(reason, message)
            self._written = (reason, message)
            return True
        return False

    async def _write(self, reason: str, message: str) -> None:
        status = "True" if reason == reasons.WEIGHTS_PRESENT else "False"
        if status != self._was:
            self._was, self._since = status, rfc3339(dt.datetime.now(dt.UTC))[:-5] + "Z"
        condition = {
            "type": names.CONDITION_WEIGHTS_READY,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": self._since,
        }
        settings = self.settings
        body = {"metadata": {"uid": settings.pod_uid}, "status": {"conditions": [condition]}}
        await self.client.patch(
            POD, settings.namespace, settings.pod_name, body, subresource="status", content_type=STRATEGIC
        )
