"""What S3 says in XML, as values; and the one thing that is said to it in XML. Pure.

Shapes: Amazon S3 API Reference. Elements are found by their local names: servers differ in the namespace.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape


@dataclass(frozen=True, slots=True)
class Entry:
    """An object in a list. `modified`: seconds since the epoch; 0 where the server does not tell."""

    key: str
    bytes: int
    modified: float


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of a list: objects, the prefixes that stand for more of them, and where the next page begins."""

    entries: tuple[Entry, ...]
    prefixes: tuple[str, ...]
    next: str = ""


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that is neither complete nor aborted."""

    key: str
    upload_id: str


def error_code(body: bytes) -> str:
    """The `Code` of an error; empty for a body that is none."""
    root = _parsed(body)
    if root is None or _local(root) != "Error":
        return ""
    code = _text(root, "Code")
    return code if code.isalnum() and len(code) <= 64 else ""


def is_error(body: bytes) -> bool:
    """Whether a body is an error whatever its status was: CompleteMultipartUpload answers 200 before it knows."""
    root = _parsed(body)
    return root is not None and _local(root) == "Error"


def upload_id(body: bytes) -> str:
    """Of an InitiateMultipartUploadResult; empty where it is none."""
    root = _parsed(body)
    return "" if root is None else _text(root, "UploadId")


def listing(body: bytes) -> Listing:
    """A ListBucketResult (version 2)."""
    root = _parsed(body)
    if root is None:
        return Listing((), ())
    entries = tuple(
        Entry(_text(entry, "Key"), int(_text(entry, "Size") or 0), _seconds(_text(entry, "LastModified")))
        for entry in _all(root, "Contents")
    )
    prefixes = tuple(_text(entry, "Prefix") for entry in _all(root, "CommonPrefixes"))
    more = _text(root, "IsTruncated") == "true"
    return Listing(entries, prefixes, _text(root, "NextContinuationToken") if more else "")


def open_uploads(body: bytes) -> tuple[OpenUpload, ...]:
    """The first page of a ListMultipartUploadsResult."""
    root = _parsed(body)
    entries = () if root is None else _all(root, "Upload")
    return tuple(OpenUpload(_text(entry, "Key"), _text(entry, "UploadId")) for entry in entries)


def completion(etags: Sequence[str]) -> bytes:
    """The body of CompleteMultipartUpload: parts 1 to n."""
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
        for number, etag in enumerate(etags, start=1)
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()


def _seconds(time: str) -> float:
    try:
        return dt.datetime.fromisoformat(time).timestamp()
    except ValueError:
        return 0.0


def _parsed(body: bytes) -> ET.Element | None:
    try:
        return ET.fromstring(body.strip())  # noqa: S314 - see the import
    except ET.ParseError:
        return None


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _all(root: ET.Element, name: str) -> Iterator[ET.Element]:
    return (child for child in root if _local(child) == name)


def _text(root: ET.Element, name: str) -> str:
    return next((child.text or "" for child in _all(root, name)), "")
