"""The child's side of child.py: limits first, then one function on the file at standard input, the answer as JSON.

`python -I -m kinora.media.worker REQUEST`, REQUEST being JSON {function, arguments, limits, output, inputs, outputs}
(the last three are descriptors). It prints a line "ready" when its own code is loaded, then one line of JSON:
{"result": ...} or {"error": "...", "input": name or ""}. It opens nothing by name.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

LIMITS = {
    "address_bytes": resource.RLIMIT_AS,
    "data_bytes": resource.RLIMIT_DATA,
    "cpu_seconds": resource.RLIMIT_CPU,
    "file_bytes": resource.RLIMIT_FSIZE,
    "open_files": resource.RLIMIT_NOFILE,
}


def main() -> int:
    """Run the request of the command line."""
    request = json.loads(sys.argv[1])
    _confine(request["limits"])
    from kinora.media import images, inspect  # noqa: PLC0415 - under the limits
    from kinora.media.info import InputError, MediaError  # noqa: PLC0415

    functions: dict[str, Callable[..., Any]] = {"probe": inspect.probe, "prove": inspect.prove}
    functions["normalise_image"] = images.normalise_image
    if request["function"] == "prepare":
        from kinora.media.prepare import prepare  # noqa: PLC0415 - only where it is used: more to load

        functions["prepare"] = prepare
    elif request["function"] == "finish":
        from kinora.media.finish import finish  # noqa: PLC0415

        functions["finish"] = finish
    elif request["function"] == "hear":
        from kinora.media.sound import hear  # noqa: PLC0415

        functions["hear"] = hear
    elif request["function"] in ("put_alpha", "channel", "preview"):
        from kinora.media import alpha  # noqa: PLC0415

        functions |= {"put_alpha": alpha.put_alpha, "channel": alpha.channel, "preview": alpha.preview}
    elif request["function"] in ("thumbnail", "spritesheet"):
        from kinora.media import stills  # noqa: PLC0415

        functions |= {"thumbnail": stills.thumbnail, "spritesheet": stills.spritesheet}
    function = functions[request["function"]]
    arguments: dict[str, Any] = dict(request["arguments"])
    if request["output"] is not None:
        arguments["output"] = os.fdopen(request["output"], "wb")
    if request["inputs"] or request["outputs"]:
        files: list[Any] = [{name: os.fdopen(one, "rb") for name, one in request["inputs"].items()}]
        files += [{name: os.fdopen(one, "w+b") for name, one in request["outputs"].items()}]
    else:
        os.lseek(0, 0, os.SEEK_SET)
        files = [os.fdopen(0, "rb", closefd=False)]
    print("ready", flush=True)
    try:
        answer = {"result": function(*files, **arguments).to_dict()}
    except InputError as error:
        answer = {"error": str(error), "input": error.name}
    except MediaError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
    return 0


def _confine(limits: Mapping[str, int]) -> None:
    for name, value in limits.items():
        _, hard = resource.getrlimit(LIMITS[name])
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(LIMITS[name], (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # libraries' exit handlers have nothing to do here
