"""The CustomResourceDefinition, generated from the models, so that a bound or a name stands in one place.

``cutover crd`` prints it; the file in ``crds/`` is its output. The API server checks types, bounds, patterns, names unique
within their list, one kind per step, and a spec that is frozen while the plan is active. It drops unknown fields; kubectl
refuses them by name. No field of the spec has a default here, because a default that changes with a new version would
change the spec of existing plans.
"""

from __future__ import annotations

from typing import Any, Final

import yaml
from pydantic import TypeAdapter

from cutover.field_path import Json
from cutover.plan.spec import Plan
from cutover.plan.status_descriptions import add_descriptions
from cutover.ports import PLANS, VERSION
from cutover.status.status import ACTIVE, Status

_DROPPED: Final = frozenset(
    {"title", "additionalProperties", "patternProperties", "propertyNames", "default", "$defs", "discriminator"}
)
_COLUMNS: Final = (
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase", "description": "Phase of the plan."},
    {"name": "Step", "type": "string", "jsonPath": ".status.progress", "description": "The current step out of all."},
    {
        "name": "Weight",
        "type": "integer",
        "jsonPath": ".status.current.weight",
        "description": "Percent of traffic on the new version.",
    },
    {
        "name": "Age",
        "type": "date",
        "jsonPath": ".metadata.creationTimestamp",
        "description": "Time since the plan was created.",
    },
    {
        "name": "Message",
        "type": "string",
        "jsonPath": ".status.message",
        "priority": 1,
        "description": "What the plan is doing or waiting for, or how it ended.",
    },
)


def definition() -> Json:
    """The CustomResourceDefinition as a manifest."""
    spec = _structural(Plan.model_json_schema(by_alias=True))
    status = _structural(add_descriptions(TypeAdapter(Status).json_schema(by_alias=True))) | {
        "default": {"observedGeneration": -1}
    }
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    schema = {
        "type": "object",
        "description": "An infrastructure migration, done step by step and rolled back when a gate fails.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [_frozen(spec)],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [dict(column) for column in _COLUMNS],
        "schema": {"openAPIV3Schema": schema},
    }
    names = {
        "kind": PLANS.kind,
        "listKind": f"{PLANS.kind}List",
        "plural": PLANS.plural,
        "singular": PLANS.kind.lower(),
        "shortNames": ["mplan"],
        "categories": ["cutover"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLANS.plural}.{PLANS.group}"},
        "spec": {"group": PLANS.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def text() -> str:
    """The CustomResourceDefinition as YAML."""

    class Plain(yaml.SafeDumper):
        """Writes every value out, without YAML anchors."""

        def ignore_aliases(self, data: object) -> bool:
            return data is not None

    head = "# Generated from the models by `cutover crd`; do not edit by hand.\n"
    return head + yaml.dump(definition(), Dumper=Plain, sort_keys=False, width=120)


def _frozen(spec: Json) -> Json:
    """A rule that only `suspend` may change in the spec while the plan is active."""
    phases = ", ".join(f"'{phase}'" for phase in sorted(ACTIVE))
    required = spec["required"]
    # Optional values (`.?`) would be shorter, but the API server estimates the cost of comparing them at more than a hundred
    # times its limit (tried on 1.36).
    same = " && ".join(
        f"self.spec.{name} == oldSelf.spec.{name}"
        if name in required
        else f"has(self.spec.{name}) == has(oldSelf.spec.{name}) && "
        f"(!has(self.spec.{name}) || self.spec.{name} == oldSelf.spec.{name})"
        for name in spec["properties"]
        if name != "suspend"
    )
    return {
        "rule": f"!(has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase in [{phases}]) || ({same})",
        "messageExpression": "'the plan is ' + oldSelf.status.phase + ', and while it is active only spec.suspend may change; "
        "let it end, or abort it (kubectl cutover abort ' + self.metadata.name + '), then apply the new spec'",
    }


def _structural(schema: Json) -> Any:
    """A JSON schema of pydantic as the API server needs it: no references, no alternatives, no defaults."""
    return _inline(schema, schema.get("$defs", {}))


def _inline(node: Json, known: Json) -> Any:
    if (replaced := _without_indirection(node, known)) is not None:
        return _inline(replaced, known)
    made = {key: value for key, value in node.items() if key not in _DROPPED}
    if "const" in made:
        made["enum"] = [made.pop("const")]
    if "description" in made:
        made["description"] = " ".join(made["description"].split())
    if "properties" in made:
        made["properties"] = {name: _inline(part, known) for name, part in made["properties"].items()}
    # A map; the API server knows no rules for its keys. Of a model it only says that there are no other fields.
    for values in (node.get("additionalProperties"), *node.get("patternProperties", {}).values()):
        if isinstance(values, dict):
            made["additionalProperties"] = _inline(values, known)
    if "items" in made:
        made["items"] = _inline(made["items"], known)
    return made


def _without_indirection(node: Json, known: Json) -> Json:
    """The node with its reference or only alternative in place; what stands beside it, as a description, counts more."""
    if "$ref" in node:
        return known[node["$ref"].rpartition("/")[2]] | _without(node, "$ref")
    if "allOf" in node and len(node["allOf"]) == 1:
        return node["allOf"][0] | _without(node, "allOf")
    if "anyOf" in node:
        choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        return choices[0] | _without(node, "anyOf")
    return None


def _without(node: Json, key: str) -> Json:
    return {name: value for name, value in node.items() if name != key}
