"""The bootstrap of the gateway's Envoy: everything but its own address comes from istiod."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness import tools

SYSTEM: Final = "istio-system"
LABELS: Final = {"istio": "ingressgateway"}


def bootstrap(
    name: str, admin: int, xds: int, *, sidecar: bool = False, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A configuration for plain Envoy that asks istiod's plain-text port for the rest.

    Args:
        name: of its pod, a dot, and the namespace.
        admin: its own port.
        xds: istiod's.
        sidecar: it is one of a pod with the label ``app`` of its name, and no gateway; no connections are redirected to it.
        labels: it is one of a pod with these, and only asks where it could send requests.
    """
    pod, _, namespace = name.partition(".")
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }
    from_ads = {"ads": {}, "resource_api_version": "V3"}
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    metadata = {
        "CLUSTER_ID": "Kubernetes",
        "NAMESPACE": namespace,
        "ISTIO_VERSION": "1.31.0",
        **(
            {"LABELS": {"app": pod}, "INTERCEPTION_MODE": "NONE"}
            if sidecar
            else {"LABELS": LABELS if labels is None else labels}
        ),
    }
    kind, listeners = "sidecar" if sidecar else "router", {"lds_config": from_ads} if labels is None else {}
    return {
        "node": {
            "id": f"{kind}~127.0.0.1~{name}~{namespace}.svc.cluster.local",
            "cluster": "gateway",
            "metadata": metadata,
        },
        "admin": {"address": _address(admin)},
        "stats_flush_interval": "1s",
        "stats_config": {"use_all_default_tags": False, "stats_tags": stats_tags()},
        "dynamic_resources": {"ads_config": ads, **listeners, "cds_config": from_ads},
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "typed_extension_protocol_options": http2,
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(xds)}}]}],
                    },
                }
            ]
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def stats_tags() -> list[dict[str, str]]:
    """The tags that give Envoy's metrics the names Istio's users know, read once from Istio's own bootstrap."""
    kept = tools.cache() / f"pilot-discovery-{tools.ISTIO}" / "stats_tags.json"
    if not kept.exists():
        source = tools.module_dir("istio", "istio.io/istio") / "tools/packaging/common/envoy_bootstrap.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(_tags(source)))
    found: list[dict[str, str]] = json.loads(kept.read_text())
    return found


def _tags(source: Path) -> list[dict[str, str]]:
    """The list in a file that is a template: cut it out, drop what is not JSON."""
    text = source.read_text()
    begin = text.index("[", text.index('"stats_tags"'))
    depth, end = 0, begin
    for place in range(begin, len(text)):
        quoted = text[begin:place].count('"') - text[begin:place].count('\\"')
        if quoted % 2 == 0 and text[place] in "[]":
            depth += 1 if text[place] == "[" else -1
            if depth == 0:
                end = place + 1
                break
    cut = re.sub(r"\{\{.*?\}\}", "", text[begin:end])
    tags: list[dict[str, str]] = json.loads(cut)
    return [tag for tag in tags if tag.get("regex") and tag.get("tag_name")]
