"""What KWOK simulates: nodes that do nothing, pods that are ready at once, or badly, as their annotation asks."""

from __future__ import annotations

import copy
from typing import Any, Final

import yaml

from harness import tools

LABEL: Final = "harness.cutover.dev/kwok"
BEHAVIOUR: Final = "harness.cutover.dev/behaviour"
"""Annotation of a pod: never-ready, slow, flapping, crash."""
_FILES: Final = ("pod/fast/pod-ready", "pod/fast/pod-complete", "pod/fast/pod-delete", "node/fast/node-initialize",
                 "node/heartbeat-with-lease/node-heartbeat-with-lease")  # fmt: skip


def stages() -> str:
    """KWOK's own stages, read once from its module, and ours beside them."""
    kept = tools.cache() / f"kwok-{tools.KWOK}" / "stages.yaml"
    if not kept.exists():
        source = tools.module_dir("kubernetes", "sigs.k8s.io/kwok") / "kustomize" / "stage"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("\n---\n".join((source / f"{name}.yaml").read_text() for name in _FILES))
    own = list(yaml.safe_load_all(kept.read_text()))
    ready = next(stage for stage in own if stage["metadata"]["name"] == "pod-ready")
    ordinary = {"key": f'.metadata.annotations["{BEHAVIOUR}"]', "operator": "DoesNotExist"}
    slow = _variant(ready, "slow", ready["spec"]["next"]["statusTemplate"])
    slow["spec"]["delay"] = {"durationMilliseconds": 3000}
    unready = _unready(ready["spec"]["next"]["statusTemplate"])
    never = _variant(ready, "never-ready", unready)
    once = 'select( .type == "Ready" ) | .status'
    flapping_down = _variant(ready, "flapping", unready)
    flapping_down["metadata"]["name"] = "pod-flapping-down"
    flapping_down["spec"]["selector"]["matchExpressions"][1:3] = [
        {"key": f".status.conditions.[] | {once}", "operator": "In", "values": ["True"]}
    ]
    flapping_up = _variant(ready, "flapping", ready["spec"]["next"]["statusTemplate"])
    flapping_up["spec"]["selector"]["matchExpressions"].pop(1)
    for stage in (flapping_down, flapping_up):
        stage["spec"]["delay"] = {"durationMilliseconds": 1000}
    crash = _variant(ready, "crash", _crashed(unready))
    ready["spec"]["selector"]["matchExpressions"].append(ordinary)
    return yaml.safe_dump_all([*own, slow, never, flapping_down, flapping_up, crash])


def _variant(ready: dict[str, Any], behaviour: str, template: str) -> dict[str, Any]:
    stage = copy.deepcopy(ready)
    stage["metadata"]["name"] = f"pod-{behaviour}"
    stage["spec"]["next"]["statusTemplate"] = template
    chosen = {"key": f'.metadata.annotations["{BEHAVIOUR}"]', "operator": "In", "values": [behaviour]}
    stage["spec"]["selector"]["matchExpressions"].append(chosen)
    return stage


def _unready(template: str) -> str:
    """The same pod, running, but never ready."""
    for kind in ("Ready", "ContainersReady"):
        template = template.replace(f'status: "True"\n  type: {kind}\n', f'status: "False"\n  type: {kind}\n')
    return template.replace("ready: true", "ready: false")


def _crashed(template: str) -> str:
    """A container that has ended and waits to be started again."""
    running = "running:\n      startedAt: {{ $now | Quote }}"
    waiting = 'waiting:\n      reason: CrashLoopBackOff\n      message: "back-off restarting failed container"'
    return template.replace(running, waiting, 1).replace("restartCount: 0", "restartCount: 3", 1)


def node(name: str) -> dict[str, Any]:
    """A node of KWOK's."""
    room = {"cpu": "10000", "memory": "10000Gi", "pods": "100000"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {LABEL: "true", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"},
        },
        "spec": {},
        "status": {"capacity": room, "allocatable": room},
    }
