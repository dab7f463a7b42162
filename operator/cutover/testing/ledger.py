"""What runs have written to their targets, by the patches that arrived: no run may end as a success while one of these fields differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cutover.errors import Broken
from cutover.field_path import Json, Path, differences, find, overlap, readable
from cutover.ports import APPLIED_LABEL, JOBS, PLAN_LABEL, PLANS, SNAPSHOTS, Ref


class Ledger:
    """The fields that each run has written since it claimed an object, each with the value it wrote last."""

    def __init__(self) -> None:
        self._written: dict[Ref, dict[str, tuple[Path, Json]]] = {}
        self._owners: dict[Ref, str] = {}
        self._ending: set[str] = set()

    def note(self, ref: Ref, before: Json, after: Json, objects: Mapping[Ref, Json]) -> None:
        """One patch of a target.

        Raises:
            Broken: it marks a success, and a field that the run has written has another value.
        """
        if ref.resource in (PLANS, SNAPSHOTS, JOBS):
            return
        owner, claimed = _label(after, PLAN_LABEL), _label(before, PLAN_LABEL)
        if owner is None and claimed is not None:
            succeeded = _label(after, APPLIED_LABEL) not in (None, _label(before, APPLIED_LABEL))
            if succeeded:  # at the first mark all of them must stand, and later those that are still to be marked
                self._must_stand(objects, [ref] if claimed in self._ending else self._of(claimed))
                self._ending.add(claimed)
            self.forget(ref)
        if owner is not None:
            self._note(ref, owner, before, after)

    def _note(self, ref: Ref, owner: str, before: Json, after: Json) -> None:
        if self._owners.get(ref) != owner:
            self.forget(ref)
        self._owners[ref] = owner
        self._ending.discard(owner)
        mine = self._written.setdefault(ref, {})
        for part in ("spec", "data"):
            for path, _, value in differences(before.get(part), after.get(part), (part,)):
                for known in [known for known, (other, _) in mine.items() if overlap(path, other)]:
                    del mine[known]
                mine[readable(path)] = path, value

    def forget(self, ref: Ref) -> None:
        """A run has released the object, or what it wrote there can no longer be known."""
        self._written.pop(ref, None)
        self._owners.pop(ref, None)

    def deleted(self, ref: Ref, body: Json) -> None:
        """An object is deleted; without its snapshot what a step has written is not known any more."""
        if ref.resource == SNAPSHOTS:
            of = body["data"]["object"]
            for other in [one for one in self._owners if (one.resource.kind, one.name) == (of["kind"], of["name"])]:
                self.forget(other)

    def _of(self, owner: str) -> list[Ref]:
        return [ref for ref, uid in self._owners.items() if uid == owner]

    def _must_stand(self, objects: Mapping[Ref, Json], refs: Iterable[Ref]) -> None:
        for ref in refs:
            if ref not in objects:
                raise Broken(f"a run ends as a success, and {ref} is gone")
            for path, value in self._written.get(ref, {}).values():
                found = find(objects[ref], path)
                if found is None or found.value != value:
                    now = "gone" if found is None else found.value
                    raise Broken(
                        f"a run ends as a success, and {readable(path)} of {ref} is {now}, where it wrote {value}"
                    )


def _label(body: Json, label: str) -> str | None:
    value: str | None = (body["metadata"].get("labels") or {}).get(label)
    return value
