"""A small blocking client of the API server for tests and the parts of the local cluster. Knows paths by kind, through discovery."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = Any

_IDLE = 60.0
"""Seconds after which a connection is not used again: the API server closes idle ones after 90."""
_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


_PATIENCE = 15


class ApiError(RuntimeError):
    """The API server refused a request."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class Api:
    """One user's view of an API server. Safe to use from several threads: each has a connection of its own."""

    def __init__(self, url: str, ca: Path, token: str) -> None:
        self.url, self.ca, self.token = url, ca, token
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._local = threading.local()
        self._paths: dict[tuple[str, str], tuple[str, bool]] = {}

    # --- requests -----------------------------------------------------------------------------------------------------

    def _connection(self) -> http.client.HTTPSConnection:
        found = getattr(self._local, "connection", None)
        if found is not None and time.monotonic() - self._local.used > _IDLE:
            found.close()
            found = None
        if found is None:
            found = self._connect()
            self._local.connection = found
        self._local.used = time.monotonic()
        return found

    def _connect(self, timeout: float = 30.0) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls, timeout=timeout)

    def _headers(self, content: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Content-Type": content, "Accept": "application/json"}

    def request(self, method: str, path: str, body: Json = None, content: str = "application/json") -> Json:
        """One request. A server that asks for patience gets it, as from every client of Kubernetes: it does so after each start."""
        for _ in range(_PATIENCE):
            try:
                return self._once(method, path, body, content)
            except ApiError as error:
                if error.status != 429:
                    raise
                time.sleep(1)
        return self._once(method, path, body, content)

    def _once(self, method: str, path: str, body: Json, content: str) -> Json:
        data = None if body is None else json.dumps(body).encode()
        for last in (False, True):
            connection = self._connection()
            try:
                connection.request(method, path, data, self._headers(content))
                response = connection.getresponse()
                text = response.read()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                self._local.connection = None
                if last or method not in ("GET", "PUT", "PATCH"):  # an idle connection that the server had closed
                    raise
        answer = json.loads(text) if text[:1] in (b"{", b"[") else text.decode()
        if response.status >= 300:
            known = answer if isinstance(answer, dict) else {}
            raise ApiError(response.status, known.get("reason", ""), known.get("message", str(answer)))
        return answer

    def get(self, path: str) -> Json:
        return self.request("GET", path)

    def find(self, path: str) -> Json | None:
        """The object, or None when there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, path: str, labels: str = "") -> list[Json]:
        query = f"?{urllib.parse.urlencode({'labelSelector': labels})}" if labels else ""
        items: list[Json] = self.get(path + query).get("items") or []
        return items

    def create(self, path: str, body: Json) -> Json:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Json, kind: str = "merge", manager: str = "") -> Json:
        query = f"?fieldManager={manager}" if manager else ""
        return self.request("PATCH", path + query, body, _PATCHES[kind])

    def delete(self, path: str, propagation: str = "Background", **options: Json) -> None:
        try:
            self.request("DELETE", path, {"propagationPolicy": propagation, **options})
        except ApiError as error:
            if error.status != 404:
                raise

    # --- manifests ----------------------------------------------------------------------------------------------------

    def path(self, manifest: Json) -> str:
        """Where the object of a manifest lives."""
        plural, namespaced = self._resource(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        group = manifest["apiVersion"]
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        place = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
        return f"{root}{place}/{plural}/{metadata['name']}"

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        if (version, kind) not in self._paths:
            root = f"/apis/{version}" if "/" in version else f"/api/{version}"
            for resource in self.get(root)["resources"]:
                if "/" not in resource["name"]:
                    self._paths[version, resource["kind"]] = (resource["name"], resource["namespaced"])
        if (version, kind) not in self._paths:
            raise LookupError(f"the API server knows no {kind} of {version}")
        return self._paths[version, kind]

    def apply(self, manifest: Json, manager: str = "harness") -> Json:
        """Server-side apply, by force."""
        return self.request(
            "PATCH", f"{self.path(manifest)}?fieldManager={manager}&force=true", manifest, _PATCHES["apply"]
        )

    def watch(
        self, path: str, *, seconds: float = 60.0, version: str = "", fields: str = ""
    ) -> Iterator[tuple[str, Json]]:
        """Events of a collection until the time is over: without a version first all that is there, as ADDED."""
        wanted = {"watch": "true", "timeoutSeconds": str(max(1, int(seconds + 0.999))), "allowWatchBookmarks": "false"}
        wanted |= {"resourceVersion": version} if version else {}
        wanted |= {"fieldSelector": fields} if fields else {}
        connection = self._connect(timeout=seconds + 5)
        try:
            connection.request("GET", f"{path}?{urllib.parse.urlencode(wanted)}", headers=self._headers(""))
            response = connection.getresponse()
            if response.status == 429:
                time.sleep(1)
                return
            if response.status >= 300:
                raise ApiError(response.status, response.reason, response.read().decode())
            while line := response.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 500), "watch", event["object"].get("message", ""))
                yield event["type"], event["object"]
        finally:
            connection.close()
