"""What a client sees of the installation: classes, models, devices, features. Pure."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any, Final

from kinora import __version__
from kinora.engine.objectinfo import object_info
from kinora.gateway.comfyui.servers import Server, classes_of, weights_of

COMFYUI_VERSION: Final = "0.3.64"  # whose words are spoken here
_GiB: Final = 1024**3


def classes(servers: Sequence[Server], uploads: Sequence[str], only: str | None = None) -> dict[str, Any]:
    """GET /object_info: what graphs may use. A class that no contract describes cannot be listed, and is not."""
    files = {**weights_of(servers), "input": list(uploads)}
    return object_info(classes_of(servers), files, only, category="Kinora")


def system_stats(servers: Sequence[Server]) -> dict[str, Any]:
    """GET /system_stats. A device is a ModelServer, its memory what its model needs at least; free while it is idle."""
    return {
        "system": {
            "os": "posix",
            "ram_total": 0,
            "ram_free": 0,
            "comfyui_version": f"{COMFYUI_VERSION}+kinora.{__version__}",
            "required_frontend_version": "",
            "installed_templates_version": "",
            "required_templates_version": "",
            "python_version": platform.python_version(),
            "pytorch_version": "",
            "embedded_python": False,
            "argv": [],
        },
        "devices": [_device(index, server) for index, server in enumerate(servers)],
    }


def _device(index: int, server: Server) -> dict[str, Any]:
    total = server.model.gpu.memory_gib * _GiB
    free = total if server.ready and not server.backlog else 0
    return {
        "name": f"{server.name} ({server.model.name})",
        "type": "cuda",
        "index": index,
        "vram_total": total,
        "vram_free": free,
        "torch_vram_total": total,
        "torch_vram_free": free,
    }


def features(upload_bytes: int) -> dict[str, Any]:
    """GET /features, and the answer to a client's feature_flags on the websocket. No previews are sent."""
    return {"supports_preview_metadata": False, "max_upload_size": upload_bytes}
