"""Steps in a database with the real Job controller, pods that are processes and a real server: there and back, killed, deleted, waited for."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import yaml

from cluster.test_examples import FAILS, FOLDER, in_a_hurry, put_before
from cutover.plan.parsing import parse
from cutover.plan.permissions import rules
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness import node
from harness.postgresql import Database
from harness.process import until
from support.cluster.shop import Operator, Shop
from support.fakes.migration_tool import ROLE

pytestmark = [pytest.mark.cluster, pytest.mark.local("its pods are processes beside the server")]

PLANTED, PASSWORD = "planted-3f9a", "hunter2-5b1c"
ROWS = 1000
STEPS = """
- name: before
  validate: {queries: [{name: lost, orphans: {table: orders, columns: [user_id], references: users}}]}
- name: expand
  schema:
    up: {inline: "ALTER TABLE users ADD COLUMN score int"}
    down: {inline: "ALTER TABLE users DROP COLUMN score"}
    validate: {inline: "SELECT count(*) FROM users WHERE score IS NOT NULL"}
- name: fill
  backfill:
    table: users
    set: {score: "id * 2", touched: "touched + 1"}
    verify: "score = id * 2"
    where: "score IS NULL"
    reverse: {score: "NULL", touched: "touched - 1"}
    batchSize: 50
    targetBatchTime: 0s
    delay: 100ms
- name: after
  validate:
    compareWith: before
    queries:
      - {name: lost, orphans: {table: orders, columns: [user_id], references: users}}
      - {name: filled, nulls: {table: users, columns: [score]}}
"""


class Steps:
    """The shop's plan, its database, and the Jobs that work in it."""

    def __init__(self, shop: Shop, database: Database) -> None:
        self.shop, self.database, self.api = shop, database, shop.api
        self.jobs_path = f"/apis/batch/v1/namespaces/{shop.namespace}/jobs"
        self.pods_path = f"/api/v1/namespaces/{shop.namespace}/pods"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.api.patch(f"/api/v1/namespaces/{shop.namespace}", {"metadata": {"labels": labels}})
        for manifest in yaml.safe_load_all(ROLE.replace("NAMESPACE", shop.namespace)):
            self.api.apply(manifest)
        database.run(
            "CREATE TABLE users (id int PRIMARY KEY, email text, touched int NOT NULL DEFAULT 0)",
            f"INSERT INTO users SELECT n, '{PLANTED}' || n FROM generate_series(1, {ROWS}) n",
            "CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users)",
            "INSERT INTO orders SELECT n, n FROM generate_series(1, 10) n",
        )

    def secret(self) -> None:
        """What the kubelet hands the pods."""
        url = self.database.url.replace("postgres@", f"postgres:{PASSWORD}@")
        data = {"uri": base64.b64encode(url.encode()).decode()}
        metadata = {"name": "shop-db", "namespace": self.shop.namespace}
        self.api.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    def spec(self, **more: Any) -> dict[str, Any]:
        database = {
            "name": "shop",
            "engine": "postgresql",
            "urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "uri"}},
            "runner": {"image": "cutover:test", **node.placement()},
        }
        return {"keepSnapshots": "1h", "databases": [database], "steps": yaml.safe_load(STEPS), **more}

    def jobs(self) -> list[Any]:
        return self.api.list(self.jobs_path)

    def job(self, step: str) -> Any:
        return next((one for one in self.jobs() if _of(one, step)), None)

    def pods(self, step: str) -> list[Any]:
        return [one for one in self.api.list(self.pods_path) if _of(one, step)]

    def filled(self) -> int:
        """Rows that have their value; none while there is no column."""
        there = self.database.value("SELECT count(*) FROM information_schema.columns WHERE column_name = 'score'")
        return int(self.database.value("SELECT count(*) FROM users WHERE score IS NOT NULL")) if there else 0

    def until_half_filled(self) -> None:
        until("some rows are filled, and some are not", lambda: 0 < self.filled() < ROWS)

    def touched(self) -> list[tuple[Any, ...]]:
        """How often rows were changed, and how many each time."""
        return self.database.rows("SELECT touched, count(*) FROM users GROUP BY 1 ORDER BY 1")


def _of(body: Any, step: str) -> bool:
    name = body["metadata"]["name"]
    return name.startswith(f"{step}-") and not name.startswith((f"{step}-undo-", f"{step}-look-"))


@pytest.fixture
def steps(shop: Shop, database: Database) -> Steps:
    return Steps(shop, database)


def test_there_and_back_on_request_with_the_rights_that_are_printed(steps: Steps) -> None:
    steps.secret()
    before = steps.database.rows("SELECT * FROM users ORDER BY id")
    spec = steps.spec()
    granted = next(yaml.safe_load_all(ROLE))["rules"]
    assert rules(parse({"serviceAccountName": "migrator", **spec})) == granted
    steps.shop.apply(spec)
    status = steps.shop.until_ended(deadline=120)
    assert status.phase is Phase.SUCCEEDED, status
    assert steps.filled() == ROWS
    assert steps.touched() == [(1, ROWS)]
    assert [step.message for step in status.steps] == [
        "lost: 0 failures",
        "",
        f"{ROWS} rows in {ROWS // 50} batches",
        "lost: 0 failures (before: 0); filled: 0 failures",
    ]
    steps.shop.request(RequestVerb.ROLLBACK)
    steps.shop.until(lambda status: status.phase is Phase.ROLLED_BACK, deadline=120)
    assert steps.database.rows("SELECT * FROM users ORDER BY id") == before


def test_nothing_of_the_data_and_no_credential_is_anywhere_in_the_cluster(steps: Steps) -> None:
    steps.secret()
    spec = steps.spec()
    spec["steps"][1]["schema"]["up"]["inline"] += (
        "; INSERT INTO users (id, email) SELECT id, email FROM users WHERE id = 7"
    )
    spec["steps"][1]["schema"]["allow"] = ["DmlAfterBlockingDdl"]
    steps.shop.apply(spec)
    status = steps.shop.until_ended(deadline=120)
    assert status.failure is not None
    assert (status.phase, status.failure.reason) == (Phase.ROLLED_BACK, "StatementFailed")
    assert "SQLSTATE 23505" in status.failure.message
    assert (
        status.failure.message.startswith("step expand: database shop: ") or "database shop: " in status.failure.message
    )
    namespace = steps.shop.namespace
    everything = [
        steps.api.list(path)
        for path in (
            steps.jobs_path,
            steps.pods_path,
            steps.shop.plans,
            f"/api/v1/namespaces/{namespace}/configmaps",
            f"/apis/events.k8s.io/v1/namespaces/{namespace}/events",
            f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions",
        )
    ]
    text = json.dumps(everything)
    assert "23505" in text
    assert PLANTED not in text
    assert PASSWORD not in text


def test_it_waits_for_its_secret_and_names_it(steps: Steps) -> None:
    steps.shop.apply(steps.spec())
    status = steps.shop.until(lambda status: "there is no Secret shop-db" in status.message, deadline=60)
    assert status.phase is Phase.PENDING
    steps.secret()
    assert steps.shop.until_ended(deadline=120).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("killed", ["pod", "Job", "operator"])
def test_each_row_is_changed_once_no_matter_what_is_killed_in_the_middle(
    steps: Steps, operator: Operator, killed: str
) -> None:
    steps.secret()
    steps.shop.apply(steps.spec())
    steps.until_half_filled()
    if killed == "pod":
        (pod,) = steps.pods("fill")
        steps.api.delete(f"{steps.pods_path}/{pod['metadata']['name']}")
    elif killed == "Job":
        steps.api.delete(f"{steps.jobs_path}/{steps.job('fill')['metadata']['name']}")
    else:
        operator.kill()
        operator.start()
    status = steps.shop.until_ended(deadline=180)
    assert status.phase is Phase.SUCCEEDED, status
    assert steps.touched() == [(1, ROWS)]


def test_an_abort_in_the_middle_takes_back_what_was_filled(steps: Steps) -> None:
    steps.secret()
    before = steps.database.rows("SELECT * FROM users ORDER BY id")
    steps.shop.apply(steps.spec())
    steps.until_half_filled()
    steps.shop.request(RequestVerb.ABORT)
    assert steps.shop.until_ended(deadline=120).phase is Phase.ROLLED_BACK
    assert steps.database.rows("SELECT * FROM users ORDER BY id") == before


@pytest.mark.parametrize("back", [False, True], ids=["forward", "there and back"])
def test_the_example(shop: Shop, database: Database, back: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """examples/schema-and-data.yaml, on a server of this machine."""
    database.run(
        "CREATE TABLE users (id int PRIMARY KEY, email_confirmed_at timestamptz)",
        "INSERT INTO users SELECT n, CASE WHEN n % 2 = 0 THEN now() END FROM generate_series(1, 100) n",
        "CREATE TABLE orders (id int PRIMARY KEY, user_id int)",
    )
    put_before(shop, "schema-and-data")
    data = {"uri": base64.b64encode(database.url.encode()).decode()}
    shop.api.patch(f"/api/v1/namespaces/{shop.namespace}/secrets/shop-db-app", {"data": data})
    spec = in_a_hurry(yaml.safe_load((FOLDER / "schema-and-data.yaml").read_text())["spec"])
    spec["databases"][0]["runner"] = {"image": "cutover:test", **node.placement()}
    before = shop.objects()
    shop.apply(spec | {"steps": [*spec["steps"], *([FAILS] if back else [])]})
    status = shop.until_ended(deadline=120)
    assert status.phase is (Phase.ROLLED_BACK if back else Phase.SUCCEEDED), status
    there = database.value("SELECT count(*) FROM information_schema.columns WHERE column_name = 'email_verified'")
    assert there == (0 if back else 1)
    if back:
        assert shop.objects() == before
    else:
        assert database.value("SELECT count(*) FROM users WHERE email_verified") == 50


def test_what_the_server_refuses_fails_at_once_and_a_server_that_is_away_is_tried_for_again(steps: Steps) -> None:
    steps.secret()
    spec = steps.spec()
    del spec["steps"][2:]
    spec["steps"][1]["schema"]["validate"]["inline"] = "SELECT count(*) FROM users"
    steps.shop.apply(spec)
    status = steps.shop.until_ended(deadline=120)
    assert status.failure is not None
    assert status.failure.reason == "ValidationFailed"
    assert steps.job("expand")["status"]["failed"] == 1
    conditions = {one["type"]: one.get("reason") for one in steps.job("expand")["status"]["conditions"]}
    assert conditions["Failed"] == "PodFailurePolicy"
