"""An engine's output file on its way into the artifact store: its key, its opening, its entry in status.

What the file must be, and what is written when it is not, stands with those that publish (publish.py for tasks,
workflow_outputs.py for raw workflows).
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from kinora.agent.verdict import failure
from kinora.api import reasons
from kinora.engine.base import OutputFile
from kinora.media.files import FileRefused, open_beneath
from kinora.media.info import MediaError, Proof
from kinora.storage.keys import artifact_key
from kinora.storage.store import Stored, StoreError


def output_key(job: Mapping[str, Any], attempt: int, filename: str, index: int) -> str:
    """The key of one output of one attempt: always the same for the same job, attempt and place."""
    metadata = job["metadata"]
    return artifact_key(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt,
        filename=filename,
        index=index,
        prefix=((job.get("spec") or {}).get("output") or {}).get("keyPrefix"),
    )


def open_output(root: Path, output: OutputFile, folder: str) -> BinaryIO:
    """The file, opened beneath the engine's output folder and only in the job's own. Raises Refusal (ProofFailed)."""
    if output.subfolder.split("/")[0] != folder:
        raise failure(reasons.PROOF_FAILED, f"{output.filename} is not in the job's own folder")
    try:
        return open_beneath(root, f"{output.subfolder}/{output.filename}")
    except FileRefused as refused:
        raise failure(reasons.PROOF_FAILED, f"the engine's output cannot be read: {refused}") from None


@contextmanager
def proving(filename: str) -> Iterator[None]:
    """Putting a file into the store and reading it back: what fails inside is raised as the attempt's failure."""
    try:
        yield
    except StoreError as error:
        raise failure(reasons.STORE_FAILED, str(error)) from None
    except MediaError as error:
        raise failure(reasons.PROOF_FAILED, f"{filename} cannot be read back: {error}") from None


def unlike(stored: Stored, proof: Proof) -> list[str]:
    """In what the bytes that came back are not those that were written; nothing where they are."""
    if (proof.sha256, proof.bytes) == (stored.sha256, stored.bytes):
        return []
    return [f"{proof.bytes} bytes with sha256 {proof.sha256} came back of {stored.bytes} bytes written"]


def artifact_entry(uri: str, proof: Proof, output: OutputFile) -> dict[str, Any]:
    """One entry of status.artifacts: what was read back, and by which of the engine's words the file is known."""
    rate = {"fps": proof.fps, "durationSeconds": proof.duration_seconds} if proof.fps else {}  # a picture has none
    return {
        "uri": uri,
        "contentType": mimetypes.guess_type(output.filename)[0] or "application/octet-stream",
        "bytes": proof.bytes,
        "sha256": proof.sha256,
        "width": proof.width,
        "height": proof.height,
        "frames": proof.frames,
        **rate,
        "node": output.node,
        "list": output.list,
        "filename": output.filename,
        "subfolder": output.subfolder,
        "type": output.type,
    }
