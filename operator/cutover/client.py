"""What the command line needs of a cluster, through the official client under the user's own kubeconfig."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kubernetes import client, config, watch

from cutover.fields import Json
from cutover.ports import PLANS


class Plans:
    """The plans that the user may see.

    Args:
        context: of the kubeconfig; None for the current one.
        namespace: None for that of the context.
    """

    def __init__(self, context: str | None, namespace: str | None) -> None:
        kubeconfig: Any = config
        kubeconfig.load_kube_config(context=context)
        known, current = kubeconfig.list_kube_config_contexts()
        chosen = next((entry for entry in known if entry["name"] == context), current)
        self.namespace: str = namespace or chosen["context"].get("namespace") or "default"
        self._api: Any = client.CustomObjectsApi()

    def get(self, name: str) -> Json:
        """One plan."""
        return self._api.get_namespaced_custom_object(PLANS.group, PLANS.version, self.namespace, PLANS.plural, name)

    def list(self, *, everywhere: bool = False) -> list[Json]:
        """All plans of the namespace, or of all."""
        if everywhere:
            answer = self._api.list_cluster_custom_object(PLANS.group, PLANS.version, PLANS.plural)
        else:
            answer = self._api.list_namespaced_custom_object(PLANS.group, PLANS.version, self.namespace, PLANS.plural)
        items: list[Json] = answer["items"]
        return items

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        """Set annotations; others stay."""
        body = {"metadata": {"annotations": dict(annotations)}}
        self._api.patch_namespaced_custom_object(PLANS.group, PLANS.version, self.namespace, PLANS.plural, name, body)

    def watch(self, name: str, seconds: Callable[[], float]) -> Iterator[Json | None]:
        """The plan now and at each change; None when it is gone.

        Args:
            name: of the plan.
            seconds: after how long at most the plan is yielded again even without a change.
        """
        changes: Any = watch
        while True:
            for event in changes.Watch().stream(
                self._api.list_namespaced_custom_object,
                PLANS.group,
                PLANS.version,
                self.namespace,
                PLANS.plural,
                field_selector=f"metadata.name={name}",
                timeout_seconds=max(1, min(300, int(seconds()))),
            ):
                yield None if event["type"] == "DELETED" else event["object"]

    def user(self) -> str:
        """The user's name as the API server knows it; empty when it does not say."""
        try:
            api: Any = client.AuthenticationV1Api()
            review = api.create_self_subject_review({})
            name: str = review.status.user_info.username or ""
        except client.ApiException:
            return ""
        return name
