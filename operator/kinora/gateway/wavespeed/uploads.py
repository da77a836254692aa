"""Uploads: the request for a place to put a file, and the answers. Pure; the place itself is the gateway's files'."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from kinora.gateway.mapping import Body


class Request(Body):
    """POST /media/uploads: the file that will be put."""

    filename: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    size: int = Field(ge=0, description="Bytes")
    content_type: Annotated[str, StringConstraints(max_length=128)] | None = None


class Instruction(BaseModel):
    """How the file is put: with these headers and no key."""

    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str] = Field(default_factory=dict)


class Ticket(BaseModel):
    """Where the file goes, and the URL by which predictions take it afterwards."""

    upload: Instruction
    download_url: str


class Ticketed(BaseModel):
    """The answer around a ticket."""

    code: int = 200
    message: str = "success"
    data: Ticket


class Stored(BaseModel):
    """A file that came as a form. `type`: image, video, audio or file, by its first bytes."""

    type: Literal["image", "video", "audio", "file"]
    download_url: str
    filename: str
    size: int


class Uploaded(BaseModel):
    """The answer around it."""

    code: int = 200
    message: str = "success"
    data: Stored


def uploaded(content_type: str, download_url: str, filename: str, size: int) -> Uploaded:
    """The answer to a file that came as a form."""
    kind = content_type.partition("/")[0]
    shown = kind if kind in ("image", "video", "audio") else "file"
    return Uploaded(
        data=Stored.model_validate({"type": shown, "download_url": download_url, "filename": filename, "size": size})
    )


def ticketed(put_url: str, download_url: str) -> Ticketed:
    """The answer."""
    return Ticketed(data=Ticket(upload=Instruction(url=put_url), download_url=download_url))
