"""Steps of plans on a real server: the engine in memory, its Jobs as processes, and what the database has in the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cutover.ports import Sample
from cutover.status.status import Phase, StepState
from cutover.testing import MemoryCluster
from harness.postgresql import Database
from support.database.pods import RealPods
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation

BY_URL = {"urlFrom": {"secretKeyRef": {"name": "shop-db", "key": "uri"}}}
STEPS = """
- name: before
  validate:
    queries:
      - {name: lost, orphans: {table: orders, columns: [user_id], references: users}}
      - {name: unconfirmed, sql: "SELECT count(*) FROM users WHERE email_confirmed_at > now()"}
- name: expand
  schema:
    up: {inline: "ALTER TABLE users ADD COLUMN email_verified boolean; COMMENT ON COLUMN users.email_verified IS 'new'"}
    down: {inline: "ALTER TABLE users DROP COLUMN email_verified"}
    validate: {inline: "SELECT count(*) FROM users WHERE email_verified IS NOT NULL"}
- name: fill
  backfill:
    table: users
    set: {email_verified: "email_confirmed_at IS NOT NULL"}
    verify: "email_verified = (email_confirmed_at IS NOT NULL)"
    reverse: {email_verified: "NULL"}
    batchSize: 100
    targetBatchTime: 0s
- name: after
  validate:
    compareWith: before
    queries:
      - {name: lost, orphans: {table: orders, columns: [user_id], references: users}}
      - {name: filled, nulls: {table: users, columns: [email_verified]}}
"""
SOAK = """
- {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
PLANTED = "planted-3f9a"


@pytest.fixture
def users(database: Database) -> Database:
    database.run(
        "CREATE TABLE users (id int PRIMARY KEY, email text, email_confirmed_at timestamptz)",
        f"INSERT INTO users SELECT n, '{PLANTED}' || n, CASE WHEN n % 3 = 0 THEN now() END FROM generate_series(1, 1000) n",
        "CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users)",
        "INSERT INTO orders SELECT n, n FROM generate_series(1, 10) n",
    )
    return database


def simulated(
    steps: str,
    secrets: Mapping[tuple[str, str], str],
    folder: Path,
    start_deadline: str = "1m",
    **where: Any,
) -> tuple[Simulation, RealPods]:
    found = list[RealPods]()

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        found.append(RealPods(cluster, secrets, folder))

    database = {"name": "shop", "engine": "postgresql", "runner": {"image": "cutover:test"}, **(where or BY_URL)}
    spec = yaml.safe_dump({"startDeadline": start_deadline, "databases": [database], "steps": yaml.safe_load(steps)})
    run = Simulation(plan(spec), put=put)
    return run, found[0]


def columns(database: Database) -> list[tuple[Any, ...]]:
    return database.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
    )


def content(database: Database) -> Any:
    return database.value("SELECT md5(string_agg((id, email, email_confirmed_at)::text, ',' ORDER BY id)) FROM users")


async def test_a_plan_expands_fills_and_validates(users: Database, tmp_path: Path) -> None:
    run, pods = simulated(STEPS, {("shop-db", "uri"): users.url}, tmp_path)
    assert await run.run() is Phase.SUCCEEDED, (run.status, pods.logs)
    assert users.value("SELECT count(*) FROM users WHERE email_verified") == 333
    assert users.value("SELECT count(*) FROM users WHERE email_verified IS NULL") == 0
    assert [step.message for step in run.status.steps] == [
        "lost: 0 failures; unconfirmed: 0 failures",
        "",
        "1000 rows in 10 batches",
        "lost: 0 failures (before: 0); filled: 0 failures",
    ]
    assert users.rows("SELECT step, count(*) FROM cutover.history GROUP BY 1 ORDER BY 1") == [
        ("after", 1),
        ("before", 1),
        ("expand", 1),
        ("fill", 1),
    ]


async def test_it_is_rolled_back_to_what_was_there(users: Database, tmp_path: Path) -> None:
    before = columns(users), content(users)
    run, pods = simulated(STEPS + SOAK, {("shop-db", "uri"): users.url}, tmp_path)
    run.metrics.answer = lambda _: Sample(0.9)
    assert await run.run() is Phase.ROLLED_BACK, (run.status, pods.logs)
    assert (columns(users), content(users)) == before
    assert all(step.state is StepState.UNDONE for step in run.status.steps)


async def test_parts_of_the_url_come_from_several_secrets(users: Database, tmp_path: Path) -> None:
    users.run("CREATE ROLE migrator LOGIN PASSWORD 'secret'", f"GRANT CREATE ON DATABASE {users.name} TO migrator")
    users.run("ALTER TABLE users OWNER TO migrator", "GRANT CREATE ON SCHEMA public TO migrator")
    parts = urlsplit(users.url)
    secrets = {("login", "username"): "migrator", ("login", "password"): "secret"}
    run, pods = simulated(
        "[{name: expand, schema: {up: {inline: ALTER TABLE users ADD COLUMN a int}, down: {inline: ALTER TABLE users DROP COLUMN a}}}]",
        secrets,
        tmp_path,
        host=parts.hostname,
        port=parts.port,
        database=users.name,
        userFrom={"secretKeyRef": {"name": "login", "key": "username"}},
        passwordFrom={"secretKeyRef": {"name": "login", "key": "password"}},
    )
    assert await run.run() is Phase.SUCCEEDED, (run.status, pods.logs)
    assert ("users", "a", "integer") in columns(users)
    assert users.value("SELECT tableowner FROM pg_tables WHERE schemaname = 'cutover' LIMIT 1") == "migrator"
    users.run("DROP OWNED BY migrator CASCADE", "DROP ROLE migrator")


async def test_hazards_and_missing_rights_refuse_the_plan_and_nothing_is_touched(
    users: Database, tmp_path: Path
) -> None:
    steps = """
- {name: one, schema: {up: {inline: ALTER TABLE users ADD COLUMN a int}, down: {inline: ALTER TABLE users DROP COLUMN a}}}
- {name: two, schema: {up: {inline: UPDATE users SET email = lower(email)}, down: {inline: SELECT 1}}}
- {name: three, validate: {queries: [{name: none, sql: DELETE FROM users}]}}
"""
    before = columns(users), content(users)
    users.run("CREATE ROLE reader LOGIN")
    url = users.url.replace("postgres@", "reader@")
    run, _ = simulated(steps, {("shop-db", "uri"): url}, tmp_path, start_deadline="5s")
    assert await run.run() is Phase.REFUSED
    users.run("DROP ROLE reader")
    assert "steps[one].schema: database shop: the role lacks a right" in run.status.message
    assert "GRANT CREATE ON DATABASE" in run.status.message
    assert (
        "schema.up: has hazards that are not allowed: UnboundedDml (statement 1, line 1, table users"
        in run.status.message
    )
    assert "steps[three].validate: database shop: " in run.status.message
    assert (columns(users), content(users)) == before
    assert users.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'cutover'") == 0


async def test_no_value_of_a_row_and_no_credential_leaves_the_database(users: Database, tmp_path: Path) -> None:
    steps = """
- name: unique
  schema:
    up: {inline: "INSERT INTO users (id, email) VALUES (1, 'planted-3f9a')"}
    down: {inline: "SELECT 1"}
"""
    wrong = users.url.replace("postgres@", "postgres:hunter2@")
    run, pods = simulated(steps, {("shop-db", "uri"): wrong}, tmp_path)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "StatementFailed", pods.logs
    assert "SQLSTATE 23505" in run.status.failure.message
    outside = [
        *pods.messages,
        str(run.status),
        *map(str, run.recorder.notices),
        *map(str, run.cluster.objects.values()),
    ]
    assert [text for text in outside if "hunter2" in text] == []
    told = [*pods.messages, str(run.status), *map(str, run.recorder.notices)]
    assert [text for text in told if PLANTED in text] == []
