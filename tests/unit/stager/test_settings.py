"""A stager's environment."""

from __future__ import annotations

import json
from ipaddress import ip_network

import pytest

from kinora.api.stagerconfig import StagerConfig
from kinora.stager.main import catalogue_of
from kinora.stager.settings import SettingsError, settings_from

PLAIN = {"KINORA_NAMESPACE": "films", "KINORA_STAGER_CONFIG": '{"artifactClaim": "videos"}'}


def test_the_defaults_are_the_public_internet() -> None:
    found = settings_from(PLAIN)
    assert (found.namespace, found.config.artifact_claim) == ("films", "videos")
    assert (found.policy.hosts, found.policy.networks, found.policy.ports) == (frozenset(), (), {80, 443})
    assert found.policy.schemes == {"http", "https"}


def test_what_the_administrator_opens_is_opened() -> None:
    allow = {"hosts": ["Minio:9000"], "networks": ["10.1.0.0/16"], "ports": [8080], "http": False}
    found = settings_from({**PLAIN, "KINORA_STAGER_CONFIG": json.dumps({"artifactClaim": "v", "allow": allow})})
    assert found.policy.hosts == {"minio:9000"}
    assert found.policy.networks == (ip_network("10.1.0.0/16"),)
    assert (found.policy.ports, found.policy.schemes) == ({8080}, {"https"})


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"KINORA_NAMESPACE": "films"}, "KINORA_STAGER_CONFIG is not set"),
        ({"KINORA_STAGER_CONFIG": PLAIN["KINORA_STAGER_CONFIG"]}, "KINORA_NAMESPACE is not set"),
        ({**PLAIN, "KINORA_STAGER_CONFIG": "{}"}, "artifactClaim"),
        ({**PLAIN, "KINORA_STAGER_CONFIG": '{"artifactClaim":"v","allow":{"networks":["10.1"]}}'}, "networks is 10.1"),
        ({**PLAIN, "KINORA_STAGER_CONFIG": '{"artifactClaim":"v","allow":{"hosts":["http://x"]}}'}, "hosts is http"),
        ({**PLAIN, "KINORA_STAGER_CONFIG": '{"artifactClaim":"v","limits":{"maxBytes":0}}'}, "maxBytes"),
    ],
)
def test_a_wrong_environment_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_from(environment)
    assert words in str(caught.value)


def test_own_models_and_aliases_are_known_and_bad_ones_are_left_out() -> None:
    own = json.dumps({"extends": "wan2.1-vace-1.3b", "name": "our-vace"})
    aliases = {"hosted": "wan2.1-vace-14b", "lost": "wan9"}
    config = StagerConfig(artifact_claim="v", model_aliases=aliases, model_entries=[own, "no: entry"])
    catalogue = catalogue_of(config)
    assert catalogue.get("hosted") is not None
    assert catalogue.get("lost") is None
    assert catalogue.get("our-vace") is not None
    assert catalogue.get("wan2.1-vace-1.3b") is not None
