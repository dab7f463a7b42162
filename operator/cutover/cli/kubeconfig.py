"""Reads and annotates plans in a cluster, with the user's kubeconfig. The official package and its errors stay in this file.

Used only by the command line; the operator's image does not contain that package.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import yaml
from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from cutover.errors import Denied, NotFound, OutsideError, Unavailable
from cutover.field_path import Json
from cutover.names import EVERYTHING, ApiPath, Selector, named, possible
from cutover.ports import PLANS, Ref, Resource

_CONNECT, _ANSWER = 5.0, 30.0
"""Seconds to connect, and then to get an answer."""
_LONGEST_STREAM = 300
_PAUSE: Final = 1.0
"""Seconds before a broken watch is opened again."""
_COLLECTION: Final = (PLANS.group, PLANS.version)
_MISSING: Final = 404
_GONE: Final = 410


class Plans:
    """The plans that the user may read.

    Every method raises OutsideError with one sentence when the API server refuses or does not answer.

    Args:
        context: kubeconfig context; None for the current one.
        namespace: None for that of the context.

    Raises:
        ValueError: the kubeconfig is missing or unusable.
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
        # What the official package raises when the document has another shape.
        except (TypeError, AttributeError, KeyError):
            raise ValueError(f"{file} is not a kubeconfig") from None
        settings.retries = False  # each retry would print a warning; the user can run the command again
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self._client: Any = client.ApiClient(settings)
        self._api: Any = client.CustomObjectsApi(self._client)

    def get(self, name: str) -> Json:
        """One plan. Raises NotFound when none has this name."""
        with self._translated(name):
            return self._api.get_namespaced_custom_object(
                *_COLLECTION, self.namespace, PLANS.plural, possible(name), _request_timeout=(_CONNECT, _ANSWER)
            )

    def list(self, *, everywhere: bool = False) -> list[Json]:
        """All plans of the namespace, or of all namespaces."""
        where = (PLANS.plural,) if everywhere else (self.namespace, PLANS.plural)
        ask = self._api.list_cluster_custom_object if everywhere else self._api.list_namespaced_custom_object
        with self._translated():
            items: list[Json] = ask(*_COLLECTION, *where, _request_timeout=(_CONNECT, _ANSWER))["items"]
            return items

    def annotate(self, name: str, annotations: Mapping[str, str]) -> None:
        """Set annotations; others are kept."""
        body = {"metadata": {"annotations": dict(annotations)}}
        with self._translated(name):
            self._api.patch_namespaced_custom_object(
                *_COLLECTION, self.namespace, PLANS.plural, possible(name), body, _request_timeout=(_CONNECT, _ANSWER)
            )

    def watch(self, name: str, seconds: Callable[[], float]) -> Iterator[Json | None]:
        """The plan now and at each change; None when it is gone.

        Args:
            name: of the plan.
            seconds: time after which the plan is yielded again even without a change.
        """
        while True:
            broken = yield from self._stream(name, max(1, min(_LONGEST_STREAM, int(seconds()))))
            # A change between two watches is in neither, so the plan is read: otherwise a deletion there would go unnoticed.
            with contextlib.suppress(NotFound):
                yield self.get(name)
                if broken:
                    time.sleep(_PAUSE)
                continue
            yield None

    def _stream(self, name: str, seconds: int) -> Generator[Json | None, None, bool]:
        """One watch; returns whether it broke early."""
        changes: Any = watch
        try:
            for event in changes.Watch().stream(
                self._api.list_namespaced_custom_object,
                *_COLLECTION,
                self.namespace,
                PLANS.plural,
                field_selector=named(name),
                timeout_seconds=seconds,
                _request_timeout=(_CONNECT, seconds + _ANSWER),
            ):
                yield None if event["type"] == "DELETED" else event["object"]
        except client.ApiException as error:
            if error.status != _GONE:
                raise self._error(error, name) from None
            return True
        except (HTTPError, ValueError):  # cut off, perhaps in the middle of a line
            return True
        return False

    def events(self, uid: str) -> Sequence[Json]:
        """Events about the plan with this uid that still exist; none when the user may not list them."""
        with contextlib.suppress(Denied), self._translated():
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
        """The user's name as the API server knows it; empty when it cannot be read."""
        try:
            api: Any = client.AuthenticationV1Api(self._client)
            review = api.create_self_subject_review({}, _request_timeout=(_CONNECT, _ANSWER))
            name: str = review.status.user_info.username or ""
        except (client.ApiException, HTTPError):
            return ""
        return name

    def read(self, path: ApiPath) -> Json:
        """The object or list at a path. Raises NotFound."""
        with self._translated():
            try:
                asked = self._client.param_serialize("GET", path, auth_settings=["BearerToken"])
                answer = self._client.call_api(*asked, _request_timeout=(_CONNECT, _ANSWER))
                answer.read()
                return self._client.response_deserialize(answer, {"200": "object"}).data
            except client.ApiException as error:
                if error.status == _MISSING:
                    raise NotFound(f"{path} not found") from None
                raise

    # --- errors -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self, name: str = "") -> Iterator[None]:
        """Turn errors of the official package into ours, each with one sentence."""
        try:
            yield
        except client.ApiException as error:
            raise self._error(error, name) from None
        except HTTPError as error:
            raise Unavailable(
                f"cannot reach the API server {self._client.configuration.host}: {_cause(error)}; is it running, and is this the "
                "right cluster (KUBECONFIG, --context)?"
            ) from None

    def _error(self, error: Any, name: str) -> OutsideError:
        try:
            answer = json.loads(error.body or "{}")
        except ValueError:
            answer = {}
        message = answer.get("message") or error.reason or f"code {error.status}"
        match error.status:
            case 404 if (answer.get("details") or {}).get("name"):
                return NotFound(f"MigrationPlan {name} not found in namespace {self.namespace}")
            case 404:
                return OutsideError(
                    f"MigrationPlans are not installed in the cluster {self._client.configuration.host}; install the CRD: "
                    "kubectl apply --server-side -f crds/migrationplans.yaml"
                )
            case 401:
                return Denied(
                    f"the API server did not accept your credentials: {message}; log in again, or use another --context"
                )
            case 403:
                return Denied(f"you are not allowed to do this: {message}; ask an administrator for the permission")
        return OutsideError(f"the API server answered: {message}")


def _cause(error: Exception) -> str:
    """Why there is no connection, without the classes and addresses that urllib3 puts before it."""
    text = str(error)
    if system := re.search(r"\[Errno -?\d+\] ([^'\")]+)", text):
        return system[1].lower()
    return text.partition(": ")[2] or text


class Objects:
    """Objects of any kind, read one at a time with the user's credentials; in the shape of the port `Cluster`."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    async def get(self, ref: Ref) -> Json:
        """One object. Raises NotFound."""
        return self._plans.read(ref.path())

    async def list(
        self, resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
    ) -> Sequence[Json]:
        """All objects of a kind in a namespace; none when the kind is not installed."""
        del labels, fresh
        try:
            items: Sequence[Json] = self._plans.read(resource.path(namespace)).get("items") or []
        except NotFound:
            return []
        return items
