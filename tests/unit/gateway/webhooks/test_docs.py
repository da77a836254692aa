"""docs/webhooks.md: its examples run, its payload is the real one, every reason, metric and chart value is in it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import time
from collections.abc import Callable

import pytest

from integration.gateway.receivers import receiving
from kinora.api import webhooks
from kinora.gateway.webhooks.decide import PAUSES
from kinora.gateway.webhooks.metrics import Metrics
from kinora.gateway.webhooks.payload import payload
from kinora.gateway.webhooks.sign import headers
from kinora_cluster import ROOT
from unit.gateway.webhooks.builders import ARTIFACT, KEY, job

TEXT = (ROOT / "docs/webhooks.md").read_text(encoding="utf-8")
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
BODY = payload(job(artifacts=[ARTIFACT]))
NOW = 1777636800


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def verify() -> Callable[..., str]:
    names: dict[str, Callable[..., str]] = {}
    exec(block("python"), names)
    return names["verify"]


def test_the_python_example_takes_what_we_send_and_nothing_else(verify: Callable[..., str]) -> None:
    sent = headers("msg_1", NOW, BODY, (bytes(24), KEY))
    assert verify(BODY, sent, SECRET, NOW + 299) == "msg_1"
    wrong = [
        (BODY + b" ", sent, SECRET, NOW),
        (BODY, {**sent, "webhook-id": "msg_2"}, SECRET, NOW),
        (BODY, {**sent, "webhook-timestamp": str(NOW + 1)}, SECRET, NOW),
        (BODY, sent, f"whsec_{base64.b64encode(b'x' * 32).decode()}", NOW),
        (BODY, sent, SECRET, NOW + 301),
        (BODY, {**sent, "webhook-signature": "v1,"}, SECRET, NOW),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"old|signed"):
            verify(*arguments)


async def test_the_curl_example_sends_what_the_python_example_takes(verify: Callable[..., str]) -> None:
    missing = [name for name in ("bash", "curl", "openssl") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}")
    async with receiving(204) as receiver:
        environment = {"PATH": os.environ["PATH"], "SECRET": SECRET, "URL": receiver.url}
        program = await asyncio.create_subprocess_exec(
            "bash", "-euc", block("bash"), env=environment, stdout=asyncio.subprocess.PIPE
        )
        [request] = await receiver.until(1)
        assert verify(request.body, request.headers, SECRET, time.time()) == "msg_sample"
        output, _ = await asyncio.wait_for(program.communicate(), 10)
        assert output == b"204\n"


def test_the_document_is_the_one_that_is_sent() -> None:
    assert json.loads(block("json")) == json.loads(BODY)


def test_every_reason_state_and_event_is_told() -> None:
    told = [value for name, value in vars(webhooks).items() if name.isupper() and isinstance(value, str)]
    words = [word for word in told if re.fullmatch(r"[A-Z][A-Za-z]+", word)]
    assert len(words) >= 11
    assert [word for word in [*words, *webhooks.WebhookState] if str(word) not in TEXT] == []
    assert webhooks.LABEL_SECRET in TEXT


def test_the_pauses_are_those_that_are_told() -> None:
    assert sum(PAUSES) == webhooks.DELIVERY_SECONDS
    assert PAUSES[:6] == (5, 300, 1800, 7200, 18000, 36000)
    assert "5 seconds, 5 minutes, 30 minutes, 2 hours, 5 hours, 10 hours" in " ".join(TEXT.split())


def test_every_metric_is_told() -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert [family.name for family in Metrics().registry.collect() if f"`{family.name}" not in text] == []
