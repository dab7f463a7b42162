"""Plans with a hostile value at each place where an author of a plan can write one, derived from the schema of the CRD.

A field that is added to a model is covered by itself, and a new kind of step by the plan on its page. Only what is not in that
plan and cannot be added to it needs one more in `CARRIERS`.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from cutover.errors import PlanError
from cutover.plan import crd
from cutover.plan.parsing import parse
from harness.cluster import ROOT

Path = tuple[str, ...]
ITEM, VALUE, KEY = "[]", "{}", "{key}"
"""In a path: an item of a list, a value of a map, and a key of a map."""

_REFUSED: Final = ("guards.[].successThreshold", "steps.[].validate.compareWith")
"""Places of the schema that no good plan has, whatever stands there; the second only the first step, which has none before it."""
_GONE: Final = object()
MARKER: Final = "qz7"
"""In each hostile value that could be a part of an address, so that it is found in a log."""
HOSTILE: Final[tuple[Any, ...]] = (
    f"../../../namespaces/kube-system/configmaps/{MARKER}",
    f"{MARKER}/../../secrets",
    f"{MARKER}/status",
    f"%2e%2e%2f%2e%2e%2f{MARKER}",
    "..",
    f"{MARKER}?labelSelector=a",
    f"{MARKER}#",
    f"{MARKER},app=web",
    f"{MARKER}\r\nImpersonate-Group: system:masters",
    MARKER,
    f"{MARKER}.kube-system",
    f"{MARKER}.kube-system.svc.cluster.local",
    f"kube-system/{MARKER}",
    f"Ü{MARKER.upper()}",
    MARKER + "x" * 300,
    "*",
    "",
    -1,
    10**30,
    True,
    None,
    [MARKER],
    {"name": MARKER},
)
"""What is not expected at a place, and what may be allowed there but leads elsewhere."""

POD: Final = """
serviceAccountName: migrator
automountServiceAccountToken: false
restartPolicy: Never
hostname: web
subdomain: shop
nodeName: node-1
nodeSelector: {disk: fast}
schedulerName: default-scheduler
priorityClassName: high
runtimeClassName: gvisor
preemptionPolicy: Never
dnsPolicy: ClusterFirst
dnsConfig: {nameservers: [10.0.0.1], searches: [shop.svc.cluster.local], options: [{name: ndots, value: "2"}]}
hostAliases: [{ip: 10.0.0.2, hostnames: [db.shop]}]
terminationGracePeriodSeconds: 5
activeDeadlineSeconds: 60
imagePullSecrets: [{name: registry}]
securityContext: {runAsUser: 1000, fsGroup: 1000, supplementalGroups: [1], sysctls: [{name: net.core.somaxconn, value: "1"}], seccompProfile: {type: Localhost, localhostProfile: a.json}}
tolerations: [{key: disk, operator: Equal, value: fast, effect: NoExecute, tolerationSeconds: 5}]
affinity:
  nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: In, values: [fast]}]}]}}
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - {topologyKey: kubernetes.io/hostname, namespaces: [shop], labelSelector: {matchLabels: {app: web}}, namespaceSelector: {matchLabels: {team: shop}}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}]
readinessGates: [{conditionType: example.com/ready}]
volumes:
  - {name: config, configMap: {name: flags, items: [{key: COLOUR, path: colour}]}}
  - {name: secret, secret: {secretName: web, items: [{key: a, path: a}]}}
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: host, hostPath: {path: /data, type: Directory}}
  - {name: nfs, nfs: {server: nfs.example, path: /a}}
  - {name: mounted, csi: {driver: csi.example, nodePublishSecretRef: {name: csi}, volumeAttributes: {a: b}}}
  - name: all
    projected:
      sources:
        - {configMap: {name: flags}}
        - {secret: {name: web}}
        - {serviceAccountToken: {audience: vault, path: token}}
        - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
initContainers:
  - {name: init, image: "tool:1", envFrom: [{configMapRef: {name: flags}, prefix: A_}, {secretRef: {name: web}}]}
containers:
  - name: app
    image: "shop:2"
    command: [run]
    args: [--fast]
    workingDir: /app
    imagePullPolicy: Always
    ports: [{name: http, containerPort: 80, protocol: TCP, hostIP: 127.0.0.1}]
    env:
      - {name: PLAIN, value: a}
      - {name: FLAG, valueFrom: {configMapKeyRef: {name: flags, key: COLOUR}}}
      - {name: TOKEN, valueFrom: {secretKeyRef: {name: web, key: token}}}
      - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
      - {name: CPU, valueFrom: {resourceFieldRef: {containerName: app, resource: limits.cpu}}}
    envFrom: [{configMapRef: {name: flags}}, {secretRef: {name: web}}]
    resources: {limits: {cpu: "1", memory: 1Gi}, requests: {cpu: 100m}, claims: [{name: gpu}]}
    volumeMounts: [{name: config, mountPath: /etc/config, subPath: a}]
    readinessProbe: {httpGet: {path: /ready, port: http, host: web, httpHeaders: [{name: A, value: b}]}}
    livenessProbe: {exec: {command: [check]}}
    startupProbe: {grpc: {port: 90, service: web}}
    lifecycle: {preStop: {exec: {command: [stop]}}}
    securityContext: {capabilities: {add: [NET_ADMIN]}, seLinuxOptions: {level: s0}}
resourceClaims: [{name: gpu, resourceClaimTemplateName: gpu}]
"""
"""A pod spec with a value of every kind."""
_OF_JOBS: Final = ("restartPolicy", "activeDeadlineSeconds")
"""What the pods of a Job may have, and those of a Deployment may not."""


def _template(*without: str) -> str:
    pod = {key: value for key, value in yaml.safe_load(POD).items() if key not in without}
    return json.dumps({"metadata": {"labels": {"app": "shop-v2"}, "annotations": {"note": "a"}}, "spec": pod})


_JOB: Final = f"""{{metadata: {{labels: {{team: shop}}, annotations: {{note: a}}}}, spec: {{completions: 1, parallelism: 1,
podFailurePolicy: {{rules: [{{action: FailJob, onExitCodes: {{containerName: app, operator: In, values: [3]}}}}]}}, template: {_template()}}}}}"""
_WAIT: Final = "steps: [{name: a, wait: {for: 1s}}]"
_VIRTUAL: Final = (
    "virtualService: {name: shop, routes: [primary]}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]"
)
_RULES: Final = "httpRoute: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]"
_TCP: Final = "virtualService: {name: shop, tcp: [5432], tls: [shop.example]}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]"
_GATES: Final = (
    "readiness: {percent: 100, workload: {name: shop-v1}}",
    'prometheus: {query: errors}, pass: {max: "0.5"}',
    'prometheus: {query: errors, baseline: before}, pass: {ratio: {max: "2"}}',
    'http: {provider: default, path: /a, query: {a: b}, jsonPath: $.a}, pass: {max: "0.5"}',
    f"job: {{template: {_JOB}}}",
)
_STEPS: Final = (
    "deploy: {workload: {name: shop-v2}, images: [{container: app, image: 'shop:2'}], replicas: 2}",
    f"deploy: {{workload: {{name: shop-v2}}, patch: {{template: {_template(*_OF_JOBS)}}}}}",
    "deploy: {workload: {kind: StatefulSet, name: store}, patch: {serviceName: store, volumeClaimTemplates: [{metadata: {name: data}, spec: {storageClassName: fast}}]}}",
    f"traffic: {{{_VIRTUAL}, mirror: {{percent: 10}}, stickiness: {{cookie: a}}}}",
    *(
        f"traffic: {{{_VIRTUAL}, match: [{{headers: {{tenant: {{{how}: a}}}}}}]}}"
        for how in ("exact", "prefix", "regex")
    ),
    f"traffic: {{{_RULES}}}",
    f"traffic: {{{_TCP}}}",
    "switch: {service: front, selector: {app: shop-v2}}",
    "flags: {configMap: flags, set: {COLOUR: green}, reload: [{name: shop-v1}], leave: [{name: shop-v2}]}",
    f"job: {{template: {_JOB}, undo: {_JOB}}}",
    f"job: {{template: {_JOB}, changesNothing: true}}",
    "job: {cronJob: seed, serviceAccountName: migrator, changesNothing: true}",
    *(f"check: {{for: 1s}}, gates: [{{name: b, {gate}}}]" for gate in _GATES),
    "approve: {message: go}",
    "notify: {provider: chat, message: hello, undo: bye}",
)
_REF: Final = "secretKeyRef: {name: a, key: b}"
_DATABASE: Final = f"{{name: a, engine: postgresql, urlFrom: {{{_REF}}}, %s}}"
_PARTS: Final = f"{{name: a, engine: postgresql, host: a, port: 5432, database: a, passwordFrom: {{{_REF}}}, %s}}"
_DATABASES: Final = (
    _PARTS % "user: a",
    _PARTS % f"userFrom: {{{_REF}}}",
    _DATABASE % f"tls: {{mode: verify-full, caFrom: {{{_REF}}}, certFrom: {{{_REF}}}, keyFrom: {{{_REF}}}}}",
    _DATABASE % "tls: {mode: verify-full, caFrom: {configMapKeyRef: {name: a, key: b}}}",
)
_IN_DATABASE: Final = (
    "{name: a, schema: {database: a, up: {inline: a}, down: {inline: a}}}",
    "{name: a, backfill: {database: a, table: a, set: {a: b}, reverse: {a: b}, verify: a}}",
    "{name: a, validate: {database: a, queries: [{name: a, sql: a, expect: equals, value: a}]}}",
    "{name: a, validate: {queries: [{name: a, duplicates: {table: a, columns: [a]}}]}}",
    "{name: a, validate: {queries: [{name: a, nulls: {table: a, columns: [a]}}]}}",
    "{name: a, validate: {queries: [{name: a, compareColumns: {table: a, old: a, new: a}}]}}",
)
CARRIERS: Final = (
    *(f"{_WAIT}\ndatabases: [{database}]" for database in _DATABASES),
    *(f"databases: [{_PARTS % 'user: a'}]\nsteps: [{steps}]" for steps in _IN_DATABASE),
    f"{_WAIT}\nwindow: {{start: '2026-01-01T00:00:00Z', end: '2027-01-01T00:00:00Z'}}\nnotifications: [{{provider: chat, phases: [Running]}}]",
    f"{_WAIT}\nwindows: [{{days: [Mon], from: '09:00', to: '17:00', timeZone: UTC}}]",
    *(f"{_WAIT}\nguards: [{{name: b, {gate}}}]" for gate in _GATES),
    *(f"steps: [{{name: a, {step}}}]" for step in _STEPS),
)
"""Plans over the shop, each of which is good."""
_TEXTS: Final = (
    "a",
    "1s",
    "5m",
    "1h",
    "0.5",
    "2",
    "09:00",
    "17:00",
    "UTC",
    "Mon",
    "$.a",
    "/a",
    "2026-06-01T00:00:00Z",
    "A",
)


@dataclass(frozen=True)
class Leaf:
    """A place for a value of an author.

    Attributes:
        path: where it is in the schema of the spec, and for one in a template also in the template of `spec`.
        spec: a good plan that has it.
        put: the plan with another value there.
        below: it is in a template of a Job or in a patch.
    """

    path: Path
    spec: Mapping[str, Any]
    put: Callable[[Any], dict[str, Any]]
    below: bool = False

    def values(self, values: Iterable[Any]) -> list[Any]:
        """Those that can stand there in JSON: a key is a string."""
        return [value for value in values if isinstance(value, str) or self.path[-1] != KEY]

    def allows(self, value: Any) -> bool:
        """Whether a plan may have this value there."""
        return _good(self.put(value))

    def __str__(self) -> str:
        return ".".join(self.path)


@functools.cache
def schema() -> dict[str, Any]:
    """What the CRD says of a spec."""
    version = yaml.safe_load(crd.text())["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


@functools.cache
def carriers() -> tuple[dict[str, Any], ...]:
    """The plans of `CARRIERS` and of the pages, in the shape that the schema wants: templates and patches as documents or as texts."""
    specs = [*(yaml.safe_load(text) for text in CARRIERS), *_of_pages()]
    return tuple(_fitting({**spec, "serviceAccountName": "migrator"}, schema()) for spec in specs)


def _of_pages() -> Iterator[dict[str, Any]]:
    for page in sorted((ROOT / "docs" / "kinds").glob("*.md")):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            yield from (body["spec"] for body in yaml.safe_load_all(block) if body["kind"] == "MigrationPlan")


def leaves() -> list[Leaf]:
    """All places: those of the schema, then those in templates of Jobs and in patches."""
    found = [_leaf(path) for path in _paths(schema()) if ".".join(path) not in _REFUSED]
    for leaf in list(found):
        document = _document(_value(leaf.spec, leaf.path))
        if isinstance(document, dict):
            found += [_below(leaf, document, inner) for inner in _places(document)]
    return found


def _leaf(path: Path) -> Leaf:
    """A good plan that has this field: one that has it, or can have it too, or instead of another field beside it."""
    for changed in itertools.chain(_with(path), _added(path)):
        if _good(changed):
            return Leaf(path, changed, functools.partial(_put, changed, schema(), path))
    raise AssertionError(
        f"no plan of CARRIERS has {'.'.join(path)}, nor can it be added to one: add a plan that has it"
    )


def _with(path: Path) -> Iterator[dict[str, Any]]:
    return (spec for spec in carriers() if _value(spec, path) is not None)


def _added(path: Path) -> Iterator[dict[str, Any]]:
    """Plans to which the field is added; its values are those that its own schema allows."""
    *above, last = path
    for value, spec in itertools.product(_samples(_at(schema(), path)), carriers()):
        beside = _value(spec, tuple(above))
        yield _put(spec, schema(), path, value)
        for key in beside if isinstance(beside, dict) and last not in (KEY, VALUE) else ():
            yield _put(_put(spec, schema(), (*above, key), _GONE), schema(), path, value)


def _below(leaf: Leaf, document: Any, inner: Path) -> Leaf:
    text = isinstance(_value(leaf.spec, leaf.path), str)

    def put(value: Any) -> dict[str, Any]:
        changed = _replaced(document, inner, value)
        return leaf.put(yaml.safe_dump(changed) if text else changed)

    return Leaf((*leaf.path, *inner), leaf.spec, put, below=True)


def _good(spec: Any) -> bool:
    try:
        parse(spec)
    except PlanError:
        return False
    return True


# --- the schema ---------------------------------------------------------------------------------------------------------


def _paths(node: Any, at: Path = ()) -> Iterator[Path]:
    """Every leaf of a schema."""
    if "properties" in node:
        for key, below in node["properties"].items():
            yield from _paths(below, (*at, key))
    elif isinstance(node.get("additionalProperties"), dict):
        yield (*at, KEY)
        yield from _paths(node["additionalProperties"], (*at, VALUE))
    elif node.get("type") == "array":
        yield from _paths(node["items"], (*at, ITEM))
    else:
        yield at


def _at(node: Any, path: Path) -> Any:
    for part in path:
        if part == KEY:
            return {"type": "string"}
        node = (
            node["items"]
            if part == ITEM
            else node["additionalProperties"]
            if part == VALUE
            else node["properties"][part]
        )
    return node


def _samples(node: Any) -> list[Any]:
    """Values that a schema allows."""
    if "enum" in node:
        return list(node["enum"])
    match node.get("type"):
        case "boolean":
            return [True, False]
        case "integer":
            return [node.get("minimum", 1), 1, 50]
        case "array":
            return [[value] for value in _samples(node["items"])]
        case "object" if "properties" in node:
            return [{key: _samples(node["properties"][key])[0] for key in node.get("required", ())}]
        case "object":
            return [{}]
    return [text for text in _TEXTS if re.search(node.get("pattern", ""), text)]


def _put(node: Any, of: Any, path: Path, value: Any) -> Any:
    """A document with a value at a path, and with all that the schema requires on the way there."""
    if not path:
        return value
    part, rest = path[0], path[1:]
    if part == ITEM:
        items = list(node or ())
        return [_put(items[0] if items else None, of["items"], rest, value), *items[1:]]
    if part in (VALUE, KEY):
        below = of["additionalProperties"]
        entries = dict(node or {"a": _samples(below)[0]})
        first = next(iter(entries))
        return {value: entries[first]} if part == KEY else entries | {first: _put(entries[first], below, rest, value)}
    fields = dict(node or {})
    for key in of.get("required", ()):
        if key not in fields and key != part:
            fields[key] = _samples(of["properties"][key])[0]
    fields[part] = _put(fields.get(part), of["properties"][part], rest, value)
    return {key: below for key, below in fields.items() if below is not _GONE}


def _fitting(node: Any, of: Any) -> Any:
    if isinstance(node, dict):
        if of.get("type") == "string":
            return yaml.safe_dump(node)
        known, others = of.get("properties", {}), of.get("additionalProperties") or {}
        return {key: _fitting(value, known.get(key, others)) for key, value in node.items()}
    return [_fitting(item, of.get("items", {})) for item in node] if isinstance(node, list) else node


# --- documents ----------------------------------------------------------------------------------------------------------


def _value(node: Any, path: Path) -> Any:
    for part in path:
        if not node:
            return None
        if part == KEY:
            return next(iter(node))
        node = node[0] if part == ITEM else next(iter(node.values())) if part == VALUE else node.get(part)
    return node


def _document(value: Any) -> Any:
    """What stands in a template or patch, as a document."""
    return yaml.safe_load(value) if isinstance(value, str) and "\n" in value else value


def _places(node: Any, at: Path = ()) -> Iterator[Path]:
    """Every value of a document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, below in children:
        yield from _places(below, (*at, str(key)))
    if not isinstance(node, dict | list):
        yield at


def _replaced(node: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    changed = copy.copy(node)
    key = int(path[0]) if isinstance(node, list) else path[0]
    changed[key] = _replaced(node[key], path[1:], value)
    return changed
