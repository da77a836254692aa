"""The CRDs, generated from the pydantic models: structural schemas with CEL, defaults, columns, subresources.

``python -m kinora.api.crd DIRECTORY`` writes one YAML file a resource; ``make generate`` calls it and CI fails when
the files drift. The translation from pydantic's JSON schema to what the API server takes (no $ref, no null, no
anyOf with null, boolean exclusiveMinimum, no additionalProperties beside properties) follows the structural-schema
rules of the Kubernetes documentation.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from kinora.api import modelserver, videojob, videojob_status
from kinora.api.base import ApiModel, integral
from kinora.api.names import GROUP, MODELSERVERS, VERSION, VIDEOJOBS

Schema = dict[str, Any]
_DROPPED = ("title", "const", "examples", "deprecated", "discriminator")


def schema_of(model: type[ApiModel]) -> Schema:
    """The structural OpenAPI v3 schema of one model."""
    raw = model.model_json_schema(by_alias=True)
    definitions = raw.pop("$defs", {})
    return _structural(raw, definitions)


def _structural(node: Schema, definitions: Schema) -> Schema:
    node = _resolve(node, definitions)
    out: Schema = {name: value for name, value in node.items() if name not in _DROPPED}
    if "const" in node:
        out["enum"] = [node["const"]]
    if out.get("default", ...) is None:
        del out["default"]
    if "exclusiveMinimum" in out:
        out["minimum"] = out.pop("exclusiveMinimum")
        out["exclusiveMinimum"] = True
    if "properties" in out:
        out["properties"] = {name: _structural(value, definitions) for name, value in out["properties"].items()}
        out.pop("additionalProperties", None)
    elif out.get("type") == "object":
        _free_form(out, definitions)
    if "items" in out:
        out["items"] = _structural(out["items"], definitions)
    out.pop("propertyNames", None)
    if isinstance(out.get("default"), dict):
        out["default"] = {}  # the nested defaults apply by themselves, and only one place says them
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    return out


def _free_form(out: Schema, definitions: Schema) -> None:
    extra = out.pop("additionalProperties", True)
    if isinstance(extra, dict) and extra:
        out["additionalProperties"] = _structural(extra, definitions)
    else:
        out["x-kubernetes-preserve-unknown-fields"] = True


def _resolve(node: Schema, definitions: Schema) -> Schema:
    """Inline $ref, and unwrap ``anyOf: [X, null]`` and ``allOf: [X]``; keys beside them win over X's own."""
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[1]]
        merged = {**target, **{name: value for name, value in node.items() if name != "$ref"}}
        return _resolve(merged, definitions)
    for combiner in ("anyOf", "allOf"):
        if combiner in node:
            branches = [branch for branch in node[combiner] if branch.get("type") != "null"]
            if len(branches) != 1:
                raise ValueError(f"{combiner} of {len(branches)} schemas is not structural: {node}")
            rest = {name: value for name, value in node.items() if name != combiner}
            return _resolve({**_resolve(branches[0], definitions), **rest}, definitions)
    return node


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False, description: str = "") -> Schema:
    column: Schema = {"name": name, "type": kind, "jsonPath": path}
    if description:
        column["description"] = description
    if wide:
        column["priority"] = 1
    return column


def _definition(
    *,
    kind: str,
    plural: str,
    short: str,
    spec: type[ApiModel],
    status: type[ApiModel],
    initial_status: Schema,
    columns: list[Schema],
    rules: list[dict[str, str]] | None = None,
    **version: Any,
) -> Schema:
    status_schema = schema_of(status)
    status_schema["default"] = initial_status
    status_schema["x-kubernetes-map-type"] = "atomic"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["kinora"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": columns,
                    **version,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "required": ["spec"],
                            **({"x-kubernetes-validations": rules} if rules else {}),
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": schema_of(spec),
                                "status": status_schema,
                            },
                        }
                    },
                }
            ],
        },
    }


def videojob_crd() -> Schema:
    """The CustomResourceDefinition of VideoJob."""
    return _definition(
        kind="VideoJob",
        plural=VIDEOJOBS,
        short="vj",
        spec=videojob.VideoJobSpec,
        status=videojob_status.VideoJobStatus,
        initial_status=videojob_status.INITIAL_STATUS,
        columns=[
            _column("Phase", ".status.phase"),
            _column("Reason", ".status.reason"),
            _column("Progress", ".status.progress.percent", "integer", description="Percent of the render"),
            _column("Server", ".status.assignment.podName"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            _column("Model", ".spec.model", wide=True),
            _column("Task", ".spec.task", wide=True),
            _column("Attempt", ".status.attempt", "integer", wide=True),
            _column("Priority", ".spec.priority", "integer", wide=True),
            _column("Seconds", ".status.timings.totalSeconds", "number", wide=True),
            _column("Message", ".status.message", wide=True),
        ],
        subresources={"status": {}},
        selectableFields=[
            {"jsonPath": ".status.phase"},
            {"jsonPath": ".status.assignment.podUID"},
            {"jsonPath": ".spec.webhook.url"},
            {"jsonPath": ".status.webhook.state"},
        ],
    )


def modelserver_crd() -> Schema:
    """The CustomResourceDefinition of ModelServer."""
    return _definition(
        kind="ModelServer",
        plural=MODELSERVERS,
        short="msrv",
        spec=modelserver.ModelServerSpec,
        status=modelserver.ModelServerStatus,
        initial_status=modelserver.INITIAL_STATUS,
        rules=[modelserver.NAME_RULE],
        columns=[
            _column("Model", ".spec.model"),
            _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            _column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
            _column("Pods", ".status.replicas", "integer"),
            _column("Up", ".status.readyReplicas", "integer", description="Pods that would start a job now"),
            _column("Busy", ".status.busyReplicas", "integer"),
            _column("Backlog", ".status.backlog", "integer"),
            _column("Age", ".metadata.creationTimestamp", "date"),
            _column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ],
        subresources={
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    )


class _Dumper(yaml.SafeDumper):
    """No anchors: each schema stands where it is used."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def render(crd: Schema) -> str:
    """The CRD as YAML, with a first line that says where it comes from."""
    body = yaml.dump(integral(crd), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return "# Generated from operator/kinora/api by `make generate`; do not edit.\n" + body


def main(directory: str) -> None:
    """Write both CRDs beneath a directory."""
    for crd in (videojob_crd(), modelserver_crd()):
        Path(directory, f"{crd['metadata']['name']}.yaml").write_text(render(crd), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
