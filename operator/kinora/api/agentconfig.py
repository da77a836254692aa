"""What the operator tells an agent: one JSON document in the agent container's environment.

It holds only what the ModelServer's spec and, for a model of an administrator's, its entry say, so that a new operator
version changes no pod template.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, StringConstraints

from kinora.api.base import ApiModel
from kinora.api.modelserver import VerifyLevel
from kinora.api.s3store import S3Store
from kinora.api.videojob import ConfigMapSource

CONFIG_VARIABLE: Final = "KINORA_AGENT_CONFIG"
# Downward-API variables beside it.
POD_NAME_VARIABLE: Final = "KINORA_POD_NAME"
POD_UID_VARIABLE: Final = "KINORA_POD_UID"
NAMESPACE_VARIABLE: Final = "KINORA_NAMESPACE"
NODE_NAME_VARIABLE: Final = "KINORA_NODE_NAME"
# What `output.watermark` shows, as JSON (Watermark); set only where an administrator chose something else.
WATERMARK_VARIABLE: Final = "KINORA_WATERMARK"
# "true" where gateways may listen to renders; not part of the template hash, so that a change rolls no pod.
LIVE_VARIABLE: Final = "KINORA_LIVE"
# Set in every engine image: the command that starts its engine; Kinora appends the folders, the port, and engine.args.
ENGINE_COMMAND_VARIABLE: Final = "KINORA_ENGINE_COMMAND"


class AgentConfig(ApiModel):
    """The part of a ModelServer's spec that its agents act on."""

    model_server_name: str
    model: str
    model_entry: str = ""
    "The text of an administrator's catalogue entry; empty: the packaged one."
    verify: VerifyLevel = VerifyLevel.HEADER
    drain_seconds: int = 1800
    artifact_claim: str = ""
    artifact_s3: S3Store | None = None
    "The bucket, where artifacts are on no claim."
    artifact_broker: str = ""
    "Who signs the requests of the bucket: a stager's store service. Empty: the agent itself, with mounted keys if any."
    input_claims: list[str] = Field(default_factory=list)
    allowed_node_classes: list[str] | None = None
    pool: str = ""


class Watermark(ApiModel):
    """What a marked video shows at its lower right: the picture, or the text where there is none.

    The picture is a key of a ConfigMap in the ModelServer's namespace; its transparency counts. The font of the text
    holds Latin letters; other scripts need a picture.
    """

    text: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[ -~\u00a0-\u017f]*$")] = (
        "AI generated"
    )
    image: ConfigMapSource | None = None
