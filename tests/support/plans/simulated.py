"""Plans for the crash tests, the traces and the state machine: name, spec, and what the metrics server answers at which weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cutover.ports import CRON_JOBS, Ref, Sample
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.database_jobs import shop_with_a_database
from support.fakes.shop import (
    CANARY,
    ROUTES,
    RULES,
    shop,
    shop_of_many_routes,
    shop_with_a_mirror,
    shop_with_an_http_route,
)
from support.fakes.simulation import Simulation


@dataclass(frozen=True)
class Story:
    """A plan and how it goes.

    `fails_at` is the weight at which the gate or guard begins to fail; above 100 is never. With `fails_in` it fails in that
    step. The cluster holds what `put` puts there. In a `timed` story the samples
    of a guard decide in which step it rolls back, and those start again after a crash. With `abort_running` it is aborted while a
    Job runs. With `retries_undo` an undo fails, what it needs is fixed, and it is retried.
    """

    name: str
    spec: str
    end: Phase
    fails_at: int = 101
    fails_in: str = ""
    approve: str = ""
    abort_in: str = ""
    timed: bool = False
    abort_running: bool = False
    retries_undo: bool = False
    put: Callable[[MemoryCluster], None] = shop


GUARDED = """
guards: [{name: budget, interval: 5s, failureThreshold: 2, prometheus: {query: burn}, pass: {max: "0.5"}}]
timeout: 1h
steps:
  - {name: images, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:3"}, {container: sidecar, image: "proxy:2"}]}}
  - {name: scale, deploy: {workload: {name: shop-v2}, replicas: 2}}
  - name: shift
    traffic: {virtualService: {name: shop, routes: [primary]}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [25, 100], settle: 2s}
  - {name: soak, check: {for: 2m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
  - {name: drain, deploy: {workload: {name: shop-v1}, replicas: 1}}
"""
APPROVED = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 1}, gates: [{name: pods, readiness: {percent: 100, for: 10s}}]}
  - {name: soak, wait: {for: 30s}}
  - {name: ok, approve: {message: "numbers look right?"}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [30]}
"""
BACK_AND_FORTH = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: there
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
  - name: back
    traffic: {virtualService: {name: shop}, from: {host: shop-v2}, to: {host: shop-v1}, weights: [100], dwell: 1m}
    gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""
STATEFUL = """
steps:
  - name: store
    deploy:
      workload: {kind: StatefulSet, name: store}
      images: [{container: db, image: "db:2"}]
      replicas: 4
      patch: |
        minReadySeconds: 5
        template:
          metadata: {annotations: {a: "1"}}
          spec:
            nodeSelector: null
            containers: [{name: db, env: [{name: MODE, value: new}], resources: {limits: {memory: 1Gi}}}]
  - name: partition
    deploy: {workload: {kind: StatefulSet, name: store}, patch: '{updateStrategy: {rollingUpdate: {partition: 2}}}'}
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
DAEMONS = """
steps:
  - name: agent
    deploy:
      workload: {kind: DaemonSet, name: agent}
      images: [{container: agent, image: "agent:2"}]
      patch: '{template: {metadata: {annotations: {one: "1", two: "2", team: null}}}}'
    gates: [{name: pods, readiness: {percent: 100}}]
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
SWITCHED = """
steps:
  - {name: green, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - {name: turn, switch: {service: front, selector: {app: shop-v2}}}
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
FLAGGED = """
steps:
  - name: dual-write
    flags:
      configMap: flags
      set: {DUAL_WRITE: "true"}
      reload: [{name: shop-v1}, {kind: StatefulSet, name: store}]
      leave: [{name: shop-v2}]
  - name: read-new
    flags: {configMap: flags, set: {USE_NEW_SCHEMA: "true", DUAL_WRITE: "true"}, reload: [{name: shop-v1}, {name: shop-v2}]}
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
NOTIFIED = """
notifications:
  - {provider: chat, phases: [Running, Waiting, RollingBack, Succeeded, RolledBack]}
steps:
  - {name: before, notify: {provider: chat, message: "v2 is coming"}}
  - {name: deploy, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - {name: after, notify: {provider: chat, message: "v2 is there", undo: "v2 is gone"}}
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
WALLED = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - name: some
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [20, 30, 40]}
    irreversible: true
  - name: rest
    retries: 1
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [60, 100], dwell: 20s}
    gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""
WIDE = """
timeout: 1h
guards: [{name: budget, interval: 20s, prometheus: {query: burn}, pass: {max: "0.5"}}]
steps:
  - {name: deploy, retries: 2, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - name: shift
    retries: 1
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [10, 20, 30, 40]}
  - {name: store, retries: 1, deploy: {workload: {kind: StatefulSet, name: store}, images: [{container: db, image: "db:2"}]}}
  - {name: ok, approve: {message: go on}}
  - name: rest
    onFailure: Pause
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [70, 100]}
    gates: [{name: errors, interval: 5s, successThreshold: 2, prometheus: {query: errors}, pass: {max: "0.5"}}]
  - {name: old, deploy: {workload: {name: shop-v1}, images: [{container: app, image: "shop-v1:2"}]}}
"""
MATCHED = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic:
      virtualService: {name: shop, routes: [primary]}
      from: {host: shop-v1}
      to: {host: shop-v2}
      mirror: {percent: 30, dwell: 30s}
      match: [{headers: {canary: {exact: "true"}}}, {headers: {cookie: {regex: ".*canary.*"}, tenant: {prefix: beta-}}}]
      weights: [10, 100]
      dwell: 1m
    gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
MANY_ROUTES = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic:
      virtualService: {name: shop, routes: [primary, api], tcp: [5432, 5433], tls: [shop.example]}
      from: {host: shop-v1}
      to: {host: shop-v2}
      weights: [25, 100]
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
_STICKY = """
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - name: shift
    traffic:
      {where}
      from: {{host: shop-v1}}
      to: {{host: shop-v2}}
      weights: [10, 100]
      stickiness: {{cookie: visit, maxAge: 1h}}
      dwell: 1m
    gates: [{{name: errors, interval: 10s, prometheus: {{query: errors}}, pass: {{max: "0.5"}}}}]
"""
STICKY, STICKY_RULES = (
    _STICKY.format(where=where) for where in ("virtualService: {name: shop}", "httpRoute: {name: shop}")
)
ROUTED = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic:
      httpRoute: {name: shop}
      from: {host: shop-v1}
      to: {host: shop-v2}
      mirror: {percent: 30, dwell: 30s}
      match: [{headers: {canary: {exact: "true"}}}, {headers: {cookie: {regex: ".*canary.*"}}}]
      weights: [10, 100]
      dwell: 1m
    gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
DATABASE = """
databases:
  - name: orders
    engine: postgresql
    urlFrom: {secretKeyRef: {name: orders-db, key: uri}}
    schema: shop
    runner: {image: "cutover:test"}
"""
_TEMPLATE = """'{spec: {template: {spec: {containers: [{name: tool, image: "IMAGE"}]}}}}'"""


def template(image: str) -> str:
    """A Job of one container, as text in YAML."""
    return _TEMPLATE.replace("IMAGE", image)


NIGHTLY = Ref(CRON_JOBS, "shop", "nightly")
_OF_A_CRON_JOB = f"""
steps:
  - {{name: seed, retries: 1, job: {{cronJob: nightly, undo: {template("tool:down")}}}}}
  - {{name: look, job: {{cronJob: nightly, changesNothing: true}}}}
"""


def cron_job(image: str, **spec: Any) -> Any:
    """The CronJob `nightly` as the API server returns it."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "tool", "image": image}]}
    given = {"metadata": {"creationTimestamp": None}, "spec": {"template": {"metadata": {}, "spec": pod}}}
    body = {"schedule": "0 3 * * *", "suspend": True, "jobTemplate": given, **spec}
    return {"metadata": {"name": NIGHTLY.name}, "spec": body}


def shop_with_a_cron_job(cluster: MemoryCluster, image: str = "tool:up") -> None:
    shop(cluster)
    cluster.put(CRON_JOBS, cron_job(image))


def migrating(image: str, undo: str = "tool:down", more: str = "") -> str:
    """A deploy, a Job that migrates, and what comes after."""
    return f"""
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 1}}}}
  - {{name: schema, job: {{template: {template(image)}, undo: {template(undo)}}}}}
{more}"""


_SOAK = '  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}\n'
_SMOKE = f"""  - name: soak
    check: {{for: 30s}}
    gates: [{{name: smoke, interval: 5s, successThreshold: 2, job: {{template: {template("smoke:1")}}}}}]
"""
_RETRIED = f"""
steps:
  - {{name: seed, retries: 1, job: {{template: {template("tool:exit-3")}, undo: {template("tool:down")}}}}}
"""
_TESTED = f"""
steps:
  - {{name: test, job: {{template: {template("smoke:1")}, changesNothing: true}}}}
  - {{name: schema, irreversible: true, job: {{template: {template("tool:up")}}}}}
"""

EXPANDED = f"""
{DATABASE}
steps:
  - name: expand
    schema: {{up: {{inline: "ADD a; ADD b"}}, down: {{inline: "DROP b; DROP a"}}, validate: {{inline: "'ADD b' not in applied"}}}}
  - name: more
    retries: 1
    schema: {{up: {{inline: "ADD c"}}, down: {{inline: "DROP c"}}}}
"""
_REFUSED = f"""
{EXPANDED}
  - name: proof
    schema: {{up: {{inline: "ADD d"}}, down: {{inline: "DROP d"}}, validate: {{inline: "True"}}}}
"""

_ASK = """validate: {queries: [{name: low, sql: "sum(row['n'] < 0 for row in rows.values())"}]"""
FILLED = f"""
{DATABASE}
steps:
  - {{name: before, {_ASK}}}}}
  - name: fill
    backfill:
      table: users
      set: {{n: "n + 1"}}
      where: "n == 0"
      verify: "n == 1"
      reverse: {{n: "n - 1"}}
      batchSize: 4
  - {{name: after, {_ASK}, compareWith: before}}}}
"""

STORIES = (
    Story("canary", CANARY, Phase.SUCCEEDED),
    Story("canary-gate-fails", CANARY, Phase.ROLLED_BACK, fails_at=50),
    Story("guarded", GUARDED, Phase.SUCCEEDED),
    Story("guarded-guard-fails", GUARDED, Phase.ROLLED_BACK, fails_at=25, timed=True),
    Story("approved", APPROVED, Phase.SUCCEEDED, approve="ok"),
    Story("approved-aborted", APPROVED, Phase.ROLLED_BACK, abort_in="ok"),
    Story("there-and-back", BACK_AND_FORTH, Phase.SUCCEEDED),
    Story("there-and-back-fails", BACK_AND_FORTH, Phase.ROLLED_BACK, fails_in="back"),
    Story("stateful", STATEFUL, Phase.SUCCEEDED),
    Story("stateful-fails", STATEFUL, Phase.ROLLED_BACK, fails_in="soak"),
    Story("daemons", DAEMONS, Phase.SUCCEEDED),
    Story("job", migrating("tool:up", more=_SOAK), Phase.SUCCEEDED),
    Story("job-undone", migrating("tool:up", more=_SOAK), Phase.ROLLED_BACK, fails_in="soak"),
    Story("job-fails", migrating("tool:exit-3"), Phase.ROLLED_BACK),
    Story("job-aborted", migrating("tool:hangs"), Phase.ROLLED_BACK, abort_running=True),
    Story("job-undo-retried", migrating("tool:exit-3", "tool:exit-4"), Phase.ROLLED_BACK, retries_undo=True),
    Story("job-retried", _RETRIED, Phase.ROLLED_BACK),
    Story("job-tested", _TESTED, Phase.SUCCEEDED),
    Story("job-of-cron-job", _OF_A_CRON_JOB, Phase.SUCCEEDED, put=shop_with_a_cron_job),
    Story(
        "job-of-cron-job-undone",
        _OF_A_CRON_JOB + _SOAK,
        Phase.ROLLED_BACK,
        fails_in="soak",
        put=shop_with_a_cron_job,
    ),
    Story("job-gate", migrating("tool:up", more=_SMOKE), Phase.SUCCEEDED),
    Story("schema", EXPANDED, Phase.SUCCEEDED, put=shop_with_a_database),
    Story("schema-undone", EXPANDED + _SOAK, Phase.ROLLED_BACK, fails_in="soak", put=shop_with_a_database),
    Story("schema-not-valid", _REFUSED, Phase.ROLLED_BACK, put=shop_with_a_database),
    Story("backfill", FILLED, Phase.SUCCEEDED, put=shop_with_a_database),
    Story("backfill-undone", FILLED + _SOAK, Phase.ROLLED_BACK, fails_in="soak", put=shop_with_a_database),
    Story("daemons-fails", DAEMONS, Phase.ROLLED_BACK, fails_in="soak"),
    Story("switched", SWITCHED, Phase.SUCCEEDED),
    Story("switched-fails", SWITCHED, Phase.ROLLED_BACK, fails_in="soak"),
    Story("flagged", FLAGGED, Phase.SUCCEEDED),
    Story("notified", NOTIFIED, Phase.SUCCEEDED),
    Story("notified-fails", NOTIFIED, Phase.ROLLED_BACK, fails_in="soak"),
    Story("flagged-fails", FLAGGED, Phase.ROLLED_BACK, fails_in="soak"),
    Story("matched", MATCHED, Phase.SUCCEEDED, put=shop_with_a_mirror),
    Story("matched-mirror-fails", MATCHED, Phase.ROLLED_BACK, fails_in="shift", put=shop_with_a_mirror),
    Story("matched-gate-fails", MATCHED, Phase.ROLLED_BACK, fails_at=10, put=shop_with_a_mirror),
    Story("matched-undone", MATCHED, Phase.ROLLED_BACK, fails_in="soak", put=shop_with_a_mirror),
    Story("routed", ROUTED, Phase.SUCCEEDED, put=shop_with_an_http_route),
    Story("routed-gate-fails", ROUTED, Phase.ROLLED_BACK, fails_at=10, put=shop_with_an_http_route),
    Story("routed-undone", ROUTED, Phase.ROLLED_BACK, fails_in="soak", put=shop_with_an_http_route),
    Story("sticky", STICKY, Phase.SUCCEEDED),
    Story("sticky-gate-fails", STICKY, Phase.ROLLED_BACK, fails_at=100),
    Story("sticky-rules-gate-fails", STICKY_RULES, Phase.ROLLED_BACK, fails_at=10, put=shop_with_an_http_route),
    Story("many-routes-fails", MANY_ROUTES, Phase.ROLLED_BACK, fails_in="soak", put=shop_of_many_routes),
)


def weight_of_new(run: Simulation) -> int:
    if RULES in run.cluster.objects:
        return int(run.cluster.objects[RULES]["spec"]["rules"][-1]["backendRefs"][1]["weight"])
    routes = run.cluster.objects[ROUTES]["spec"]["http"]
    entries = next(route for route in routes if route.get("name") == "primary")["route"]
    return int(entries[1].get("weight", 0))


async def play(story: Story, run: Simulation) -> Phase:
    """Drive a story to its end; people act when the plan waits for them."""
    reached = False

    def answer(_: str) -> Sample:
        nonlocal reached
        shifted = weight_of_new(run) >= story.fails_at
        reached = reached or shifted
        there = run.status.current is not None and run.status.current.step == story.fails_in
        return Sample(0.9 if shifted or there else 0.1)

    run.metrics.answer = answer
    for step, verb in ((story.approve, RequestVerb.APPROVE), (story.abort_in, RequestVerb.ABORT)):
        if step:
            await run.until(lambda: run.phase is Phase.WAITING)
            run.request(verb, step if verb is RequestVerb.APPROVE else "")
    if story.abort_running:
        await run.until(lambda: any((body.get("status") or {}).get("active") for body in run.cluster.objects.values()))
        run.request(RequestVerb.ABORT)
    if story.retries_undo:
        await run.until(lambda: run.phase is Phase.STUCK)
        run.cluster.exits = lambda _: 0
        run.request(RequestVerb.RETRY)
    return await run.run()
