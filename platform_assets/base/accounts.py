"""Accounts of runs, sensors, steps and services: which runs an account has, and which secrets.

What each may write in the store is in `deploy/store/policy.json`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from platform_assets.base.settings import PRODUCT

STORE_SECRET = "driftline-store"
"""Which every pod but a step's reads: its own secret, if there is one, takes precedence."""


@dataclass(frozen=True)
class Account:
    """Identity of a kind of process, in Kubernetes and at the store.

    Attributes:
        name: in Kubernetes `driftline-NAME`.
        is_per_product: each product may have one of its own.
        signs: has the key that signs verdicts and releases.
        asks_kubernetes: runs with it have a token of Kubernetes.
    """

    name: str
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


ADVANCE = Account("advance")
"""Takes keys through data and monitoring; also any run that no other account is for."""
# The only runs with rights in Kubernetes: their steps are pods.
RETRAIN = Account("retrain", signs=True, asks_kubernetes=True)
"""Trains and judges; the last stage of a retrain is its release."""
RELEASE = Account("release", signs=True)
"""Releases a digest that passed, for a person."""
INTERVENTION = Account("intervention")
"""Accepts, drops or repairs a key, or has keys built again, for a person."""
MAINTENANCE = Account("maintenance")
CODE = Account("code")
"""The code server, with its sensors."""
STEP = Account("step", is_per_product=True)
SERVICE = Account("service", is_per_product=True)
WEBSERVER = Account("webserver")
"""Webservers, daemon and exporter, and pods whose own key is missing: they read."""

OF_RUNS = (ADVANCE, RETRAIN, RELEASE, INTERVENTION, MAINTENANCE)
ACCOUNTS = (*OF_RUNS, CODE, STEP, SERVICE, WEBSERVER)

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
# Dagster has no users: our run coordinator stamps who asks, and these jobs end where that is no person.
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
