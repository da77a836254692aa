"""Where an artifact lies: its key is a function of job and attempt, so that no two attempts share one.

Pure. Keys are relative paths of plain names with forward slashes, the same for every kind of store.
"""

import re

from kinora.recipes.delivery import is_plain_name, key_prefix_fault

MAX_KEY_BYTES = 1024  # S3's limit
_SHA256 = re.compile(r"[0-9a-f]{64}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class KeyRefused(ValueError):  # noqa: N818 - a verdict
    """A part of a key that would lead elsewhere. The message names the part."""


def artifact_key(
    *, namespace: str, name: str, uid: str, attempt: int, filename: str, index: int = 0, prefix: str | None = None
) -> str:
    """`[prefix/]namespace/name/uid/attempt/index-filename`. Unusual characters of `filename` become `_`.

    Raises KeyRefused for anything that is not a plain name, and for a prefix that is not a relative path of such names.
    """
    refused = key_prefix_fault(prefix or "")
    if refused:
        raise KeyRefused(f"key prefix {prefix!r}: allowed is {refused}")
    if attempt < 1 or index < 0:
        raise KeyRefused(f"attempt {attempt} or index {index} is out of range")
    for identity in (namespace, name, uid):
        if not is_plain_name(identity):
            raise KeyRefused(f"{identity[:80]!r} is no plain name")
    safe = _UNSAFE.sub("_", filename)[-100:]
    parts = [namespace, name, uid, str(attempt), f"{index}-{safe}"]
    if prefix:
        parts.insert(0, prefix.removesuffix("/"))
    return checked_key("/".join(parts))


def is_artifact_key(
    key: str, *, namespace: str, name: str, uid: str, attempt: int, prefix: str | None = None, most: int = 8
) -> bool:
    """Whether `artifact_key` makes this key of some file name, for one of the first `most` outputs of the attempt."""
    index, dash, filename = key.rpartition("/")[2].partition("-")
    if not dash or not re.fullmatch(r"[0-9]{1,3}", index) or int(index) >= most:
        return False
    try:
        return key == artifact_key(
            namespace=namespace, name=name, uid=uid, attempt=attempt, filename=filename, index=int(index), prefix=prefix
        )
    except KeyRefused:
        return False


def input_key(sha256: str) -> str:
    """Where an input lies that a stager fetched: its content names it, so that the same content is one object."""
    if not _SHA256.fullmatch(sha256):
        raise KeyRefused(f"{sha256[:80]!r} is no sha256")
    return f"inputs/{sha256}"


def upload_key(namespace: str, upload: str) -> str:
    """Where a user's upload lies: beneath the namespace's own prefix, whatever `upload` says. Raises KeyRefused."""
    return checked_key(f"uploads/{namespace}/{upload}")


def intake_key(namespace: str, job_uid: str, name: str) -> str:
    """Where a stager notes what it found of one input (`references[1]`) until the job's status says so."""
    return checked_key(f"intake/{namespace}/{job_uid}/{_UNSAFE.sub('_', name)}.json")


def checked_key(key: str) -> str:
    """The key itself, if it is one: plain names that begin with a letter, a digit or `_`. Raises KeyRefused."""
    parts = key.split("/")
    if len(key) > MAX_KEY_BYTES:
        raise KeyRefused(f"a key of {len(key)} bytes, at most {MAX_KEY_BYTES} are allowed")
    for part in parts:
        if not is_plain_name(part):
            raise KeyRefused(f"{part[:80]!r} is no plain name")
    return key


def readable(key: str, namespace: str) -> bool:
    """Whether the store service hands this object out for the namespace: its artifacts and its uploads, no notes.

    What lies there for another namespace, where a volume is shared, is not handed out.
    """
    try:
        parts = checked_key(key).split("/")
    except KeyRefused:
        return False
    if parts[0] == "uploads":
        return len(parts) >= 4 and parts[1] == namespace
    if parts[0] in ("inputs", "names", "intake") and len(parts) < 6:
        return False
    return len(parts) >= 5 and parts[-5] == namespace and parts[-2].isdigit()
