"""Who a plan's account is to the API server, and the question whether it may do something. Pure; used by `kubernetes.py`."""

from __future__ import annotations

from cutover.field_path import Json
from cutover.ports import ACCESS_REVIEWS, Ref


def user_of(namespace: str, account: str) -> str:
    """The name of the user that a service account is."""
    return f"system:serviceaccount:{namespace}:{account}"


def review(account: str, namespace: str, verb: str, ref: Ref) -> Json:
    """The question for the authorizer of the API server, about an object of this namespace or another."""
    attributes = {
        "namespace": ref.namespace,
        "verb": verb,
        "group": ref.resource.group,
        "resource": ref.resource.plural,
        "name": ref.name,
    }
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {
        "apiVersion": ACCESS_REVIEWS.api_version,
        "kind": ACCESS_REVIEWS.kind,
        "spec": {"user": user_of(namespace, account), "groups": groups, "resourceAttributes": attributes},
    }
