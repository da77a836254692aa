"""All VideoJobs of a namespace, as far as it matters for what lies in its stores; garbage.py says what follows."""

from __future__ import annotations

from kinora.kube.client import KubeClient, Object
from kinora.kube.resources import VIDEOJOB
from kinora.storage.garbage import Census, facts_of


async def census_of(client: KubeClient, namespace: str) -> Census:
    """All jobs of the namespace as they are now. ApiError, UnreachableError."""
    return Census.of([facts_of(job) for job in (await client.list(VIDEOJOB, namespace, trim=_trimmed))[0]])


def _trimmed(job: Object) -> Object:
    """What facts_of reads: prompts and graphs of ten thousand jobs are not kept."""
    status = job.get("status") or {}
    graph = ((job.get("spec") or {}).get("workflow") or {}).get("upload")
    return {
        "metadata": {"uid": job["metadata"]["uid"]},
        "spec": {"workflow": {"upload": graph}} if graph else {},
        "status": {name: status[name] for name in ("phase", "artifacts", "inputs") if name in status},
    }
