"""What the command line needs of a cluster, under the user's own kubeconfig. The official package and its errors end here.

Used by the command line alone; the operator's image does not have that package.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import yaml
from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from cutover.errors import Denied, NotFound, OutsideError, Unavailable
from cutover.field_path import Json
from cutover.ports import PLANS, Ref, Resource

_CONNECT, _ANSWER = 5.0, 30.0
"""Seconds until a connection must stand, and from then on until there is an answer."""
_LONGEST_STREAM = 300
_PAUSE: Final = 1.0
"""Seconds before a stream that broke is opened anew."""
_COLLECTION: Final = (PLANS.group, PLANS.version)
_MISSING: Final = 404
_GONE: Final = 410


class Plans:
    """The plans that the user may see.

    Every method raises OutsideError with one sentence when the API server says no or nothing.

    Args:
        context: of the kubeconfig; None for the current one.
        namespace: None for that of the context.

    Raises:
        ValueError: there is no kubeconfig that can be used.
    """

    def __init__(self, context: str | None, namespace: str | None) -> None:
        file = os.environ.get("KUBECONFIG") or "~/.kube/config"
        settings: Any = client.Configuration()
        kubeconfig: Any = config
        try:
            kubeconfig.load_kube_config(file, context=context, client_configuration=settings)
            known, current = kubeconfig.list_kube_config_contexts(file)
            chosen = next((entry for entry in known if entry["name"] == context), current)
            self.namespace: str = namespace or chosen["context"].get("namespace") or "default"
        except (config.ConfigException, OSError) as error:
            raise ValueError(str(error)) from None
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
        except (TypeError, AttributeError, KeyError):  # what the official package makes of another shape
            raise ValueError(f"{file} is YAML, but no kubeconfig") from None
        settings.retries = False  # each try would be a warning on the screen, and people can try again themselves
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self._client: Any = client.ApiClient(settings)
        self._api: Any = client.CustomObjectsApi(self._client)

    def get(self, name: str) -> Json:
        """One plan. Raises NotFound when there is none of this name."""
        with self._plainly(name):
            return self._api.get_namespaced_custom_object(
                *_COLLECTION, self.namespace, PLANS.plural, name, _request_timeout=(_CONNECT, _ANSWER)
            )

    def list(self, *, everywhere: bool = False) -> list[Json]:
        """All plans of the namespace, or of all."""
        where = (PLANS.plural,) if everywhere else (self.namespace, PLANS.plural)
        ask = self._api.list_cluster_custom_object if everywhere else self._api.list_namespaced_custom_object
        with self._plainly():
            items: list[Json] = ask(*_COLLECTION, *where, _request_timeout=(_CONNECT, _ANSWER))["items"]
            return items

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        """Set annotations; others stay."""
        body = {"metadata": {"annotations": dict(annotations)}}
        with self._plainly(name):
            self._api.patch_namespaced_custom_object(
                *_COLLECTION, self.namespace, PLANS.plural, name, body, _request_timeout=(_CONNECT, _ANSWER)
            )

    def watch(self, name: str, seconds: Callable[[], float]) -> Iterator[Json | None]:
        """The plan now and at each change; None when it is gone.

        Args:
            name: of the plan.
            seconds: after how long at most the plan is yielded again even without a change.
        """
        while True:
            broken = yield from self._stream(name, max(1, min(_LONGEST_STREAM, int(seconds()))))
            # Read, for what happened between two streams is in neither: a plan deleted there would never be missed.
            with contextlib.suppress(NotFound):
                yield self.get(name)
                if broken:
                    time.sleep(_PAUSE)
                continue
            yield None

    def _stream(self, name: str, seconds: int) -> Generator[Json | None, None, bool]:
        """One stream; whether it broke before its time."""
        changes: Any = watch
        try:
            for event in changes.Watch().stream(
                self._api.list_namespaced_custom_object,
                *_COLLECTION,
                self.namespace,
                PLANS.plural,
                field_selector=f"metadata.name={name}",
                timeout_seconds=seconds,
                _request_timeout=(_CONNECT, seconds + _ANSWER),
            ):
                yield None if event["type"] == "DELETED" else event["object"]
        except client.ApiException as error:
            if error.status != _GONE:
                raise self._said(error, name) from None
            return True
        except (HTTPError, ValueError):  # cut, perhaps in the middle of a line
            return True
        return False

    def events(self, uid: str) -> Sequence[Json]:
        """Events about the plan of this uid that are still there; none when the user may not list them."""
        with contextlib.suppress(Denied), self._plainly():
            items: Sequence[Json] = self._api.list_namespaced_custom_object(
                "events.k8s.io",
                "v1",
                self.namespace,
                "events",
                field_selector=f"regarding.uid={uid}",
                _request_timeout=(_CONNECT, _ANSWER),
            )["items"]
            return items
        return ()

    def user(self) -> str:
        """The user's name as the API server knows it; empty when it does not say."""
        try:
            api: Any = client.AuthenticationV1Api(self._client)
            review = api.create_self_subject_review({}, _request_timeout=(_CONNECT, _ANSWER))
            name: str = review.status.user_info.username or ""
        except (client.ApiException, HTTPError):
            return ""
        return name

    def read(self, path: str) -> Json:
        """Whatever stands at a path. Raises NotFound."""
        with self._plainly():
            try:
                asked = self._client.param_serialize("GET", path, auth_settings=["BearerToken"])
                answer = self._client.call_api(*asked, _request_timeout=(_CONNECT, _ANSWER))
                answer.read()
                return self._client.response_deserialize(answer, {"200": "object"}).data
            except client.ApiException as error:
                if error.status == _MISSING:
                    raise NotFound(f"there is no {path}") from None
                raise

    # --- errors -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _plainly(self, name: str = "") -> Iterator[None]:
        """Foreign errors become ours, each with one sentence."""
        try:
            yield
        except client.ApiException as error:
            raise self._said(error, name) from None
        except HTTPError as error:
            why = str(error).partition(": ")[2] or str(error)
            raise Unavailable(
                f"the API server {self._client.configuration.host} cannot be reached: {why}; is it up, and is this the "
                "cluster you mean (KUBECONFIG, --context)?"
            ) from None

    def _said(self, error: Any, name: str) -> OutsideError:
        try:
            answer = json.loads(error.body or "{}")
        except ValueError:
            answer = {}
        says = answer.get("message") or error.reason or f"code {error.status}"
        match error.status:
            case 404 if (answer.get("details") or {}).get("name"):
                return NotFound(f"there is no MigrationPlan {name} in namespace {self.namespace}")
            case 404:
                return OutsideError(
                    f"the cluster {self._client.configuration.host} does not know MigrationPlans; install the CRD: "
                    "kubectl apply --server-side -f crds/migrationplans.yaml"
                )
            case 401:
                return Denied(f"the API server does not know you: {says}; log in again, or use another --context")
            case 403:
                return Denied(f"you may not do this: {says}; ask an administrator for that right")
        return OutsideError(f"the API server says: {says}")


class Objects:
    """Objects of any kind, read one after the other as the user; in the shape of the port `Cluster`."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    async def get(self, ref: Ref) -> Json:
        """One object. Raises NotFound."""
        return self._plans.read(f"{ref.resource.path(ref.namespace)}/{ref.name}")

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Sequence[Json]:
        """All objects of a kind in a namespace; a kind that is not installed has none."""
        del labels, fresh
        try:
            items: Sequence[Json] = self._plans.read(resource.path(namespace)).get("items") or []
        except NotFound:
            return []
        return items
