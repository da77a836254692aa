"""What an administrator opens to requests that lead where users say. Values; kinora.storage.guard acts on them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from kinora.api.base import ApiModel


class Allow(ApiModel):
    """What may be reached besides the public internet on ports 80 and 443; without `http`, only https."""

    hosts: list[Annotated[str, StringConstraints(max_length=253)]] = Field(default_factory=list)
    networks: list[Annotated[str, StringConstraints(max_length=64)]] = Field(default_factory=list)
    ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(default_factory=lambda: [80, 443])
    http: bool = True
