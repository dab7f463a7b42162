"""Hosts as Istio reads them, and the Services that they name. Pure."""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "cluster.local"
"""The usual cluster domain. No object tells another one: it is a setting of the kubelets and of istiod."""
_OF_CLUSTER_SETS: Final = "clusterset.local"
"""Hosts below it are Services of several clusters (Multi-Cluster Services API)."""


def full_host(host: str, namespace: str) -> str:
    """A host as Istio reads it: a name without a dot is a Service of the namespace of the object that names it."""
    return host if "." in host or host == "*" else f"{host}.{namespace}.svc.{DOMAIN}"


def service_of(host: str, namespace: str) -> str:
    """The Service of this namespace that a host names, in any cluster domain; empty when it names anything else."""
    name, _, rest = full_host(host, namespace).partition(".")
    place, _, domain = rest.partition(".svc.")
    return name if place == namespace and domain not in ("", _OF_CLUSTER_SETS) else ""


def other_domain(host: str) -> str:
    """The cluster domain that a host of a Service names, where it is not the usual one."""
    domain = host.partition(".svc.")[2]
    return "" if domain == DOMAIN else domain


def namespace_in(host: str) -> str:
    """The namespace that a host of a Service names; empty for a name alone."""
    return host.partition(".")[2].partition(".")[0]


def not_a_service(host: str, namespace: str) -> str:
    """Why a host is not a Service of a namespace, as a message; empty when it is one.

    Without a namespace, which a document may leave out, only what can be a Service of no namespace at all is refused.
    """
    if service_of(host, namespace or namespace_in(host)):
        return ""
    whose = f"namespace {namespace}" if namespace else "the plan's namespace"
    return f"host {host} is not a Service of {whose}; traffic can be shifted between its Services only; name one, or give what runs elsewhere a WorkloadEntry that one selects"


def same(one: str, other: str, namespace: str) -> bool:
    """Whether two hosts name the same: the cluster domain need not be told."""
    if full_host(one, namespace) == full_host(other, namespace):
        return True
    alone = "." not in one or "." not in other
    return alone and service_of(one, namespace) == service_of(other, namespace) != ""
