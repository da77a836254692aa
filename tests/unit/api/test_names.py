"""Names of children and prompts: functions of identities, so that doing a thing twice is a conflict."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinora.api import names

UID = "0b7c8a52-6f7e-4c1e-9a37-1c2f4a9d1e55"
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
SERVERS = st.from_regex(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", fullmatch=True)


@given(SERVERS, st.integers(0, 999), st.integers(0, 99))
@settings(deadline=None)
def test_a_pods_name_is_a_host_name_that_tells_its_slot(server: str, slot: int, incarnation: int) -> None:
    name = names.pod_name(server, UID, "0a1b2c3d", slot, incarnation)
    assert len(name) <= 63
    assert DNS_LABEL.fullmatch(name)
    assert re.fullmatch(rf".+-{slot}-[0-9a-f]{{8}}", name)
    assert name == names.pod_name(server, UID, "0a1b2c3d", slot, incarnation)


def test_a_pods_name_changes_with_each_thing_that_makes_it_another_pod() -> None:
    made = {
        names.pod_name("vace", uid, digest, slot, incarnation)
        for uid in (UID, UID[::-1])
        for digest in ("aaaaaaaa", "bbbbbbbb")
        for slot in (0, 1)
        for incarnation in (0, 1)
    }
    assert len(made) == 16
    # 8 hex digits of sha256("<uid>/<templateHash>/<slot>/<incarnation>")
    assert names.pod_name("vace", UID, "aaaaaaaa", 0, 0) == "vace-0-" + _digest(f"{UID}/aaaaaaaa/0/0")


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


@pytest.mark.parametrize("attempt", [1, 2, 10])
def test_a_prompts_id_is_the_uuid5_of_job_and_attempt(attempt: int) -> None:
    found = names.prompt_id(UID, attempt)
    assert found == str(uuid.uuid5(uuid.UUID(UID), str(attempt)))
    assert uuid.UUID(found).version == 5
    assert found != names.prompt_id(UID, attempt + 1)
    assert found != names.prompt_id(UID.replace("0", "1"), attempt)


def test_one_spelling_of_a_key() -> None:
    assert names.key({"metadata": {"namespace": "films", "name": "cat"}}) == "films/cat"


def test_each_attempt_has_its_own_folder() -> None:
    assert names.job_folder(UID, 1) == f"{UID}-1"
    assert names.job_folder(UID, 1) != names.job_folder(UID, 11)


def test_engine_and_agent_are_two_users_and_neither_is_root() -> None:
    assert len({names.ENGINE_UID, names.AGENT_UID, 0}) == 3
