"""Accounts of runs, sensors, steps and services: which runs an account has, and what it may write in the store.

Everybody may read the store, nobody may delete from a ledger. A place is below the root; `{product}` is the product's
name, every product's for accounts that work for all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from platform_assets.base import naming
from platform_assets.base.settings import PRODUCT

TABLES = (f"tables/{PRODUCT}/", f"records/{PRODUCT}/")
ARTIFACTS, SAVES, PIPES, PULSE = "artifacts/", "saves/", "pipes/", "pulse/"
SEGMENTS, CLOCK = f"prediction_log/{PRODUCT}/", f"prediction_log_clock/{PRODUCT}/"
LEDGERS = "ledgers/"
STORE_SECRET = "driftline-store"
"""Which every pod but a step's reads: its own secret, if there is one, takes precedence."""
REBUILDS, REBUILD_SNAPSHOTS, REFUSALS = "rebuilds", "rebuild_snapshots", "refusals"


@dataclass(frozen=True)
class Account:
    """Identity of a kind of process, in Kubernetes and at the store.

    Attributes:
        name: in Kubernetes `driftline-NAME`.
        is_for: what has it, for the table of rights.
        creates: places in which it may write.
        deletes: places from which it may delete.
        is_per_product: each product may have one of its own.
        signs: has the key that signs verdicts and releases.
        asks_kubernetes: runs with it have a token of Kubernetes.
    """

    name: str
    is_for: str
    creates: tuple[str, ...]
    deletes: tuple[str, ...] = ()
    is_per_product: bool = False
    signs: bool = False
    asks_kubernetes: bool = False

    def service_account(self, product: str = "") -> str:
        """Return the Kubernetes service account, which is also the role at the cloud's store.

        Args:
            product: for accounts that each product may have of its own; empty: one for all products.
        """
        return self._named("driftline", product)

    def store_secret(self, product: str = "") -> str:
        """Return the Kubernetes secret with the account's key of the store."""
        return STORE_SECRET if self == WEBSERVER else self._named(STORE_SECRET, product)

    def _named(self, begin: str, product: str) -> str:
        return "-".join([begin, self.name, *([_label(product)] if self.is_per_product and product else [])])


def ledger(*names: str) -> tuple[str, ...]:
    """Return the places of a product's ledgers."""
    return tuple(f"{naming.ledger_path(PRODUCT, name)}/" for name in names)


_MONEY = ledger(naming.ATTEMPTS, naming.ANNOUNCED, naming.LEASES)

ADVANCE = Account(
    "advance",
    "runs that take keys through data and monitoring, and any run that no other account is for",
    (
        *TABLES,
        ARTIFACTS,
        *ledger(naming.DECISIONS, naming.FAULTS, naming.REQUESTS, naming.ATTENDANCE),
        *ledger(naming.CLAIMS, naming.INGESTED, REBUILD_SNAPSHOTS, naming.MATERIALISED, naming.DEFINED_IN),
    ),
    deletes=TABLES,
)
RETRAIN = Account(
    "retrain",
    "runs that train and judge; the last stage of a retrain is its release",
    (
        *TABLES,
        ARTIFACTS,
        SAVES,
        PIPES,
        *_MONEY,
        *ledger(naming.VERDICTS, naming.RELEASES, REFUSALS, naming.OVERSPENDINGS, naming.COST),
    ),
    deletes=(*TABLES, SAVES, PIPES),
    signs=True,
    asks_kubernetes=True,
)
RELEASE = Account(
    "release",
    "runs in which a person releases a digest that passed",
    ledger(naming.RELEASES, REFUSALS),
    signs=True,
)
INTERVENTION = Account(
    "intervention",
    "runs in which a person accepts, drops or repairs a key, or has keys built again",
    ledger(naming.FAULTS, naming.INTERVENTIONS, REBUILDS, naming.RENEWALS, naming.COMPATIBLE, naming.REQUESTS),
)
MAINTENANCE = Account(
    "maintenance",
    "the nightly cleaning of tables and of old segments",
    (*TABLES, *ledger(naming.PRUNED)),
    deletes=(*TABLES, SEGMENTS),
)
CODE = Account(
    "code",
    "the code server: its sensors request, record failures and alerts, and settle attempts whose pod is gone",
    (
        *ledger(naming.REQUESTS, naming.ANSWERED, naming.ALERTS, naming.ALERT_QUEUE, naming.FAILURES),
        *_MONEY,
        *ledger(naming.OVERSPENDINGS, naming.RENEWALS, naming.SLOW_SOURCES, naming.MATERIALISED),
        PULSE,
    ),
)
STEP = Account(
    "step",
    "trainings and exports of one product",
    (
        ARTIFACTS,
        SAVES,
        PIPES,
        *ledger(naming.LEASES, naming.ATTEMPTS, naming.CHECKPOINTS, naming.TRAININGS),
    ),
    deletes=(SAVES,),
    is_per_product=True,
)
SERVICE = Account(
    "service",
    "services of one product: their segments, and an object by which they learn the store's time",
    (SEGMENTS, CLOCK),
    is_per_product=True,
)

WEBSERVER = Account("webserver", "webservers, daemon and exporter, and pods whose own key is missing: they read", ())

OF_RUNS = (ADVANCE, RETRAIN, RELEASE, INTERVENTION, MAINTENANCE)
ACCOUNTS = (*OF_RUNS, CODE, STEP, SERVICE, WEBSERVER)
WRITES_LOGS = (*OF_RUNS, CODE)
"""Accounts whose output Dagster keeps in the logs' bucket: runs, and the ticks of sensors."""

OTHER_RUNS = "driftline-other-run"
"""The Kubernetes service account of runs of other code locations: it reads no secret of ours and has no rights."""

_BY_VERB = {
    "advance": ADVANCE,
    "verify": ADVANCE,
    "retrain": RETRAIN,
    "release": RELEASE,
    "accept": INTERVENTION,
    "repair": INTERVENTION,
    "rebuild": INTERVENTION,
    "maintain": MAINTENANCE,
}
VERBS = frozenset(_BY_VERB)
"""What stands before the first `__` in the names of products' jobs."""
OF_A_PERSON = ("release", "accept", "repair", "rebuild")
"""Verbs of jobs that only a person may ask for."""
_ASSETS = ""
"""What stands before the first `__` in the name of Dagster's own job, for assets picked in the UI."""
_TRAINING = frozenset({"checkpoint", "onnx", "evaluation", "service", "release"})


def of_run(job: str, stages: Collection[str]) -> Account:
    """Return the account of a run.

    Args:
        job: its name, `retrain__orders`.
        stages: of the assets that were picked; none if the job decides.
    """
    verb = job.partition("__")[0]
    if verb != _ASSETS:
        return _BY_VERB.get(verb, ADVANCE)
    if set(stages) == {"release"}:
        return RELEASE
    return RETRAIN if not stages or _TRAINING & set(stages) else ADVANCE


def needs_person(job: str) -> bool:
    """Tell whether only a person may ask for a run of this job."""
    return job.partition("__")[0] in OF_A_PERSON


def of_product(name: str | None, product: str) -> str | None:
    """Return a name in Kubernetes in which `{product}` may stand for the product."""
    return None if name is None else name.replace(PRODUCT, _label(product))


def _label(product: str) -> str:
    """Return a product's name as Kubernetes allows it in names."""
    return product.replace("_", "-")
