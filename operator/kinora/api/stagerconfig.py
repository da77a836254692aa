"""What the chart tells the operator of stagers, and what the operator tells a stager: JSON in the environment."""

from __future__ import annotations

from typing import Final, Self

from pydantic import Field, model_validator

from kinora.api.allow import Allow
from kinora.api.base import ApiModel, FreeForm
from kinora.api.intake import Store, bucket_store, claim_store
from kinora.api.modelserver import ArtifactStoreSpec
from kinora.api.s3store import S3Store

CONFIG_VARIABLE: Final = "KINORA_STAGER_CONFIG"  # of a stager
CHART_VARIABLE: Final = "KINORA_STAGER"  # of the operator: the chart's values

MAX_INPUT_BYTES: Final = 2 * 1024**3  # of one input, fetched or not
UPLOAD_SECONDS: Final = 48 * 3600
ARTIFACT_SECONDS: Final = 7 * 24 * 3600
INPUT_SECONDS: Final = 14 * 24 * 3600


class Limits(ApiModel):
    """When a stager gives up. Seconds: of one fetch in all, without a byte, and of all tries of one job."""

    max_bytes: int = Field(1024**3, ge=1, le=MAX_INPUT_BYTES)
    fetch_seconds: float = Field(600, gt=0)
    idle_seconds: float = Field(20, gt=0)
    give_up_seconds: float = Field(600, ge=0)


class StagerConfig(ApiModel):
    """What one stager acts on. Exactly one of `artifact_claim` and `artifact_s3` is its store."""

    artifact_claim: str = ""
    artifact_s3: S3Store | None = None
    model_aliases: dict[str, str] = Field(default_factory=dict)
    model_entries: list[str] = Field(default_factory=list)  # the administrator's own, as text
    allow: Allow = Field(default_factory=Allow)
    limits: Limits = Field(default_factory=Limits)
    parallel: int = Field(4, ge=1, le=64)
    # How long what nobody uses stays; 0: for ever. Artifacts: of the gateway's jobs that are gone.
    upload_seconds: int = Field(UPLOAD_SECONDS, ge=0)
    artifact_seconds: int = Field(ARTIFACT_SECONDS, ge=0)
    input_seconds: int = Field(INPUT_SECONDS, ge=0)

    @model_validator(mode="after")
    def _one_store(self) -> Self:
        if bool(self.artifact_claim) == (self.artifact_s3 is not None):
            raise ValueError("exactly one of artifactClaim, artifactS3 must be set")
        return self

    @property
    def store(self) -> Store:
        """The store that it serves."""
        return claim_store(self.artifact_claim) if self.artifact_s3 is None else bucket_store(self.artifact_s3)


class StagerValues(ApiModel):
    """The chart's values under `stager`."""

    enabled: bool = True
    allow: Allow = Field(default_factory=Allow)
    limits: Limits = Field(default_factory=Limits)
    parallel: int = Field(4, ge=1, le=64)
    upload_seconds: int = Field(UPLOAD_SECONDS, ge=0)
    artifact_seconds: int = Field(ARTIFACT_SECONDS, ge=0)
    input_seconds: int = Field(INPUT_SECONDS, ge=0)
    network_policy: bool = True
    resources: FreeForm = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[FreeForm] = Field(default_factory=list)

    def config(self, artifacts: ArtifactStoreSpec, aliases: dict[str, str], entries: list[str]) -> StagerConfig:
        """What the stager of this store is told."""
        return StagerConfig(
            artifact_claim=artifacts.claim_name or "",
            artifact_s3=artifacts.s3,
            model_aliases=aliases,
            model_entries=entries,
            allow=self.allow,
            limits=self.limits,
            parallel=self.parallel,
            upload_seconds=self.upload_seconds,
            artifact_seconds=self.artifact_seconds,
            input_seconds=self.input_seconds,
        )
