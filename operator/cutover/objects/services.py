"""The ports of a Service: which one a destination means, and whether a pod has it. Pure; used by whatever resolves or counts destinations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cutover.field_path import Json

_UDP: Final = "UDP"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a Service.

    Attributes:
        number: by which routes name it.
        name: by which EndpointSlices name it; may be empty where it is the only one.
        target: where the pods listen: a number, or the name of a port of their containers.
        protocol: as the Service has it.
    """

    number: int
    name: str
    target: int | str
    protocol: str = "TCP"

    def __str__(self) -> str:
        """As messages name it: ``80 (http)``."""
        return f"{self.number} ({self.name})" if self.name else str(self.number)

    @property
    def named(self) -> bool:
        """Whether a pod has it only if one of its containers has a port of that name."""
        return isinstance(self.target, str)

    def served_by(self, pod: Json) -> bool:
        """Whether a pod, or the template of one, has it, as the EndpointSlices tell it; a number is never asked for."""
        return not self.named or (self.target, self.protocol) in _ports_in(pod)


def _ports_in(pod: Json) -> set[tuple[str, str]]:
    """The names of the ports of all containers that run as long as the pod, each with its protocol."""
    spec = pod.get("spec") or {}
    sidecars = (item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always")
    containers = (*(spec.get("containers") or ()), *sidecars)
    ports = (port for container in containers for port in container.get("ports") or ())
    return {(port["name"], port.get("protocol") or "TCP") for port in ports if "name" in port}


def port_names(pod: Json) -> set[str]:
    """The names of the ports of a pod's containers."""
    return {name for name, _ in _ports_in(pod)}


def ports_of(service: Json) -> list[Port]:
    """All ports of a Service."""
    return list(_ports(service))


def _ports(service: Json) -> Iterator[Port]:
    for port in service["spec"].get("ports") or ():
        number = port["port"]
        yield Port(number, port.get("name") or "", port.get("targetPort") or number, port.get("protocol") or "TCP")


def meant(service: Json, numbers: Collection[int | None]) -> tuple[Port, ...] | str:
    """The ports that destinations mean by these numbers, or a message that says which one the Service lacks.

    Where a destination names none (None), Istio takes the only port; of several the one with the number of the port at which
    the request came in, so that each may be meant. Ports for UDP are never meant.
    """
    known = {port.number: port for port in reversed(ports_of(service)) if port.protocol != _UDP}
    lacking = [str(number) for number in sorted(number for number in numbers if number) if number not in known]
    name = service["metadata"]["name"]
    if lacking:
        has = (
            f"but {' and '.join(str(port) for port in _in_order(known.values()))}" if known else "nor any other for TCP"
        )
        what = " and ".join(lacking)
        message = f"Service {name} has no port {what}, which the route names, {has}, so every one of those requests would fail"
        return f"{message}; name another port in the route, or add {what} to the Service"
    if numbers and not known:
        return f"Service {name} has no port for TCP, so every request would fail; add one"
    return _in_order(known.values() if None in numbers else (known[number] for number in numbers if number))


def _in_order(ports: Iterable[Port]) -> tuple[Port, ...]:
    return tuple(sorted(ports, key=lambda port: port.number))
