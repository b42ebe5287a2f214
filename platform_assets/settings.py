"""Read the environment: the only file that does.

Every value has a default that works on a laptop; `DRIFTLINE_ENV=cluster` makes the cluster's ones required.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from platform_assets.problems import Problem

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ("local", "cluster")
STORE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ALLOW_HTTP")
"""Of the S3 client; its keys are secrets, which a pod has from a Secret or from its cloud."""
STORE_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
LAUNCHERS = ("subprocess", "container", "kubernetes")
BROKEN_PRODUCTS = ("refuse", "show")
_TOLD_OTHERWISE = ("environment", "alert_webhook", "store_environment", "store_secrets")
"""Settings whose variables have other names, or hold secrets."""


_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.*")
"""A bucket of S3 by its rules for names, or a folder."""


class SettingsProblem(Problem, ValueError):
    """An environment variable with a value that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What differs between a laptop and a cluster.

    Attributes:
        environment: `local` or `cluster`.
        root: where tables, artifacts, ledgers and landing files lie: a folder or an `s3://` URL.
        launcher: how training steps are started.
        state: a local folder for what is no data: Dagster's home, built Bentos, scratch files.
        serving_workers: processes of one service.
        serving_poll_s: how often a service looks for a new release.
        serving_load_s: how long a look at the store, or loading and warming a model, may take.
        serving_needs_store: whether a service is ready only after the store has named its model; otherwise it starts
            from what its machine keeps of the last release, or from the model that came with the Bento.
        serving_digest: the one bundle that a service serves, following no release; None to follow.
        sensor_patience_s: for how long a tick that found nothing to do goes on looking, so that a replay need not wait
            for the daemon's next round (every 5 s); stay below that.
        namespace: of the pods of steps, on Kubernetes.
        trainer_image: in which steps run as pods or containers: with its digest, `name@sha256:...`.
        trainer_libraries: what that image's label says of them, where nobody can read it: `numpy=... torch=...`.
        step_secret: the Kubernetes secret whose entries become the environment of steps, such as keys of S3.
        step_service_account: of the pods of steps, for a cloud's workload identity; no token of it is mounted.
        store_environment: variables of the S3 client that are no secrets, as pairs, for what runs elsewhere.
        store_secrets: names of the S3 client's keys that are set here; their values are nowhere but in the environment.
        alert_webhook: where alerts are posted; None for nowhere. A secret: shown in no `repr`, log or message.
        broken_products: what becomes of a product's file that cannot be loaded: `refuse` to load any, or `show` it as
            one placeholder asset and load the others.
    """

    environment: Literal["local", "cluster"] = "local"
    root: str
    launcher: Literal["subprocess", "container", "kubernetes"] = "subprocess"
    state: Path
    serving_workers: int = 2
    serving_poll_s: float = 2.0
    serving_load_s: float = 30.0
    serving_needs_store: bool = False
    serving_digest: str | None = None
    sensor_patience_s: float = 0.0
    alert_webhook: str | None = field(default=None, repr=False)
    namespace: str = "driftline"
    trainer_image: str | None = None
    trainer_libraries: str | None = None
    step_secret: str | None = None
    step_service_account: str | None = None
    store_environment: tuple[tuple[str, str], ...] = ()
    store_secrets: tuple[str, ...] = ()
    broken_products: Literal["refuse", "show"] = "refuse"

    @property
    def dagster_home(self) -> Path:
        """The folder of Dagster's own storage (runs, events, logs)."""
        return self.state / "dagster"

    @property
    def bentoml_home(self) -> Path:
        """The folder of built Bentos."""
        return self.state / "bentoml"

    @property
    def prediction_log(self) -> Path:
        """The folder into which serving processes append predictions."""
        return self.state / "predictions"

    @property
    def serving_metrics(self) -> Path:
        """The folder in which the workers of a service add up their metrics."""
        return self.state / "serving_metrics"

    @property
    def serving_kept(self) -> Path:
        """The folder in which services keep the last good model of each product."""
        return self.state / "serving"

    @property
    def scratch(self) -> Path:
        """A folder for training checkpoints in hand and other files that may be lost."""
        return self.state / "scratch"

    @staticmethod
    def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
        """Return the settings that the environment asks for; an empty one gives the laptop's.

        Args:
            environ: the variables to read; the process's own by default.

        Raises:
            SettingsProblem: naming the variable, its value and what was expected.
        """
        environ = os.environ if environ is None else environ
        environment = _choice(environ, "DRIFTLINE_ENV", ENVIRONMENTS, "local")
        state = Path(environ.get("DRIFTLINE_STATE") or REPOSITORY / ".driftline").absolute()
        root = environ.get("DRIFTLINE_ROOT") or ("" if environment == "cluster" else str(state / "store"))
        if not root:
            raise SettingsProblem("DRIFTLINE_ROOT is not set; with DRIFTLINE_ENV=cluster it must name an s3:// URL.")
        root = _storage_root(root)
        launcher = _choice(
            environ, "DRIFTLINE_LAUNCHER", LAUNCHERS, "subprocess" if environment == "local" else "kubernetes"
        )
        return Settings(
            environment=environment,  # type: ignore[arg-type]  # _choice checked both
            root=root,
            launcher=launcher,  # type: ignore[arg-type]  # as above
            state=state,
            serving_workers=int(_number(environ, "DRIFTLINE_SERVING_WORKERS", least=1, default=2)),
            serving_poll_s=_number(environ, "DRIFTLINE_SERVING_POLL_S", least=0.05, default=2.0),
            serving_load_s=_number(environ, "DRIFTLINE_SERVING_LOAD_S", least=0.05, default=30.0),
            serving_needs_store=_choice(environ, "DRIFTLINE_SERVING_NEEDS_STORE", ("true", "false"), "false") == "true",
            serving_digest=environ.get("DRIFTLINE_SERVING_DIGEST") or None,
            sensor_patience_s=_number(environ, "DRIFTLINE_SENSOR_PATIENCE_S", least=0, default=0.0),
            namespace=environ.get("DRIFTLINE_NAMESPACE") or "driftline",
            trainer_image=environ.get("DRIFTLINE_TRAINER_IMAGE") or None,
            trainer_libraries=environ.get("DRIFTLINE_TRAINER_LIBRARIES") or None,
            step_secret=environ.get("DRIFTLINE_STEP_SECRET") or None,
            step_service_account=environ.get("DRIFTLINE_STEP_SERVICE_ACCOUNT") or None,
            store_environment=tuple((name, environ[name]) for name in STORE_VARIABLES if environ.get(name)),
            store_secrets=tuple(name for name in STORE_SECRETS if environ.get(name)),
            alert_webhook=_secret_address(environ, "DRIFTLINE_ALERT_WEBHOOK"),
            broken_products="show" if shows_broken_products(environ) else "refuse",
        )

    def to_environment(self) -> dict[str, str]:
        """Return the variables that give a child process these settings; no secrets, for a shell prints them."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _TOLD_OTHERWISE}
        own = {f"DRIFTLINE_{name.upper()}": _written(value) for name, value in values.items()}
        homes = {"DAGSTER_HOME": str(self.dagster_home), "BENTOML_HOME": str(self.bentoml_home)}
        return {"DRIFTLINE_ENV": self.environment, **own, **homes, "BENTOML_DO_NOT_TRACK": "true"}

    def child_environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a child process: this process's own, these settings, and `more`."""
        secrets = {"DRIFTLINE_ALERT_WEBHOOK": self.alert_webhook} if self.alert_webhook else {}
        return {**os.environ, **self.to_environment(), **secrets, **(more or {})}


def shows_broken_products(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the code location shows a broken product's file as a placeholder; otherwise it refuses to load.

    Servers and their runs show it: those of the cluster by `DRIFTLINE_ENV`, those of `driftline dev` and the demo by
    `DRIFTLINE_BROKEN_PRODUCTS`, which their runs inherit. Everything else refuses: CI, tests, builds of images, and
    `dagster definitions validate` wherever it runs, which says of itself by a variable that it is validating.
    """
    environ = os.environ if environ is None else environ
    is_cluster = environ.get("DRIFTLINE_ENV") == "cluster"
    wanted = _choice(environ, "DRIFTLINE_BROKEN_PRODUCTS", BROKEN_PRODUCTS, "show" if is_cluster else "refuse")
    return wanted == "show" and not environ.get("DAGSTER_IS_DEFS_VALIDATION_CLI")


def forget_container() -> None:
    """Forget that Bento's image says that it is one; see `serving.respawn`."""
    os.environ.pop("BENTOML_CONTAINERIZED", None)


def _written(value: str | bool | float | Path | None) -> str:
    """Return a setting as its variable has it."""
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _choice(environ: Mapping[str, str], name: str, allowed: tuple[str, ...], default: str) -> str:
    value = environ.get(name) or default
    if value not in allowed:
        raise SettingsProblem(f"{name} is {value!r}; expected one of {', '.join(allowed)}.")
    return value


def _storage_root(text: str) -> str:
    """Return where everything is stored: a folder, absolute, or a bucket's URL."""
    if ":/" not in text:
        return str(Path(text).absolute())
    if not _URL.fullmatch(text):
        raise SettingsProblem(f"DRIFTLINE_ROOT is {text!r}; expected a folder or a URL such as s3://bucket/path.")
    return text


def _number(environ: Mapping[str, str], name: str, *, least: float, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < float("inf"):
        raise SettingsProblem(f"{name} is {text!r}; expected a number of at least {least}.")
    return value


def _secret_address(environ: Mapping[str, str], name: str) -> str | None:
    value = environ.get(name) or None
    if value is not None and not value.startswith(("http://", "https://")):
        raise SettingsProblem(f"{name} is no http or https address (its value is a secret and not shown).")
    return value
