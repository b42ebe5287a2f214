"""Read the environment: the only file that does.

Every setting has a default that works on a laptop. With `DRIFTLINE_ENV=cluster`, `DRIFTLINE_ROOT` is required.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from platform_assets.base.configuration import (
    Configuration,
    ConfigurationProblem,
    Unfit,
    expect,
    number_from,
    one_of,
    unexpected,
)

REPOSITORY = Path(__file__).resolve().parents[2]
AUTHORITIES = "/etc/driftline-ca"
"""Where pods find the config map `driftline-ca`, the certificates of private authorities."""
AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE")
"""Whom obstore, deltalake and Python trust, and whom boto3."""
STORE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ALLOW_HTTP", *AUTHORITY_VARIABLES)
"""Of the S3 clients; their keys are secrets, which a pod has from a Secret or from its cloud."""
BROKEN_PRODUCTS = ("refuse", "show")
LOG_FORMATS = ("text", "json")
# Of one run over 193 hours (2,316 events of each kind): 19 to 21 s of CPU instead of 26 (2026-11-30, two busy cores).
EVENTS_AT_ONCE = 500
"""Events of a run's keys that Dagster stores together, where it would store each alone."""
PRODUCT = "{product}"
"""Stands for a product's name, with dashes, in settings that name accounts and secrets."""
PROFILE_VARIABLE = "DRIFTLINE_PROFILE__"
"""Begins the name of a variable for one field of one profile: `DRIFTLINE_PROFILE__GPU_SPOT__DATA_ZONE`."""

_PUBLIC_KEY = re.compile(r"[0-9A-Za-z+/]{43}=")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ENDPOINT = re.compile(r"https?://[0-9A-Za-z_.\[\]:-]+(/\S*)?")
_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.*")
"""A bucket of S3 by its rules for names, or a folder."""

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_METRIC_LABELS = re.compile(r"[a-zA-Z_]\w*=[^,=]+(, *[a-zA-Z_]\w*=[^,=]+)*", re.ASCII)
_LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9][\w.-]{0,62}=[A-Za-z0-9][\w.-]{0,62}", re.ASCII)


class SettingsProblem(ConfigurationProblem):
    """An environment variable with a value that cannot be used."""


def _storage_root(text: str) -> str:
    """Return where everything is stored: an absolute folder, or a bucket's URL."""
    if ":/" not in text:
        return str(Path(text).absolute())
    if not _URL.fullmatch(text):
        raise Unfit(f"is {text!r}; expected a folder or a URL such as s3://bucket/path")
    return text


def _flag(value: object) -> object:
    """Return a boolean for `true` and `false`; pydantic alone would take `yes` and `1` as well."""
    if value not in (True, False, "true", "false"):
        raise Unfit(unexpected(value, "one of true, false"))
    return value in (True, "true")


def _secret_address(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not is_address(value.get_secret_value()):
        raise Unfit("is not an http or https address (its value is a secret and not shown)")
    return value


def pairs(text: str | None) -> list[tuple[str, str]]:
    """Return what a setting with commas names: `a=1, 2` as `[("a", "1"), ("", "2")]`."""
    parts = [part.strip().rpartition("=") for part in (text or "").split(",") if part.strip()]
    return [(name.strip(), value.strip()) for name, _, value in parts]


def _public_keys(value: object) -> object:
    """Return public keys from a text with commas; a tuple is checked alike."""
    keys = value.split(",") if isinstance(value, str) else value
    keys = tuple(key.strip() for key in keys) if isinstance(keys, list | tuple) else ()
    if wrong := [key for key in keys if not _PUBLIC_KEY.fullmatch(key)]:
        raise Unfit(unexpected(wrong[0], "a public key as `driftline keys` prints it, 44 characters of base64"))
    return keys


def _is_endpoint(text: str) -> bool:
    try:
        return _ENDPOINT.fullmatch(text) is not None and urlsplit(text).port != 0
    except ValueError:  # the port is above 65535, or a bracket is missing
        return False


def _store_variables(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Refuse what the S3 client would panic at, or refuse at its first request without naming the variable."""
    values = dict(pairs)
    address = values.get("AWS_ENDPOINT_URL")
    if address is not None and not _is_endpoint(address):
        raise Unfit(unexpected(address, "an address such as https://s3.example:8333"), "AWS_ENDPOINT_URL")
    if (flag := values.get("AWS_ALLOW_HTTP", "true")) not in ("true", "false"):
        raise Unfit(unexpected(flag, "one of true, false"), "AWS_ALLOW_HTTP")
    missing = [name for name in AUTHORITY_VARIABLES if name not in values]
    if len(missing) == 1:
        both = "boto3 reads AWS_CA_BUNDLE, all others SSL_CERT_FILE"
        raise Unfit(f"names no file below {AUTHORITIES}, and the other one does; set both: {both}", missing[0])
    return pairs


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _is_port(port: int) -> bool:
    return 1 <= port <= 65_535


def _networks(text: str | None) -> str | None:
    """Refuse a text that is not a list of networks."""
    for part in [] if text is None else text.split(","):
        try:
            ipaddress.ip_network(part)
        except ValueError as problem:
            raise Unfit(f"is {text!r}; expected addresses and networks with commas between them: {problem}") from None
    return text


def is_address(text: str | None) -> bool:
    """Tell whether a text is an address that a page may link to, or is not set."""
    return text is None or text.startswith(("http://", "https://"))


TRACKING = "MLFLOW_TRACKING_URI"
MLFLOW_VARIABLES = (
    TRACKING,
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)


class Settings(Configuration):
    """What differs between a laptop and a cluster. The variable of a field is `DRIFTLINE_` and its name in capitals."""

    problem: ClassVar[type[ConfigurationProblem]] = SettingsProblem

    environment: Annotated[Literal["local", "cluster"], one_of("local", "cluster")] = Field(
        default="local", description="`local` or `cluster`; its variable is DRIFTLINE_ENV"
    )
    root: Annotated[str, AfterValidator(_storage_root)] = Field(
        description="where tables, artifacts, ledgers and landing files lie: a folder or an `s3://` URL"
    )
    launcher: Annotated[Literal["subprocess", "kubernetes"], one_of("subprocess", "kubernetes")] = Field(
        default="subprocess", description="how training steps are started; `kubernetes` by default in a cluster"
    )
    state: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        description="a local folder for what is not data: Dagster's home, built Bentos, scratch files, a service's "
        "prediction log; outside of a checkout, as in a Bento, `driftline` in XDG_STATE_HOME or `~/.local/state`"
    )
    serving_poll_s: Annotated[float, number_from(0.05)] = Field(
        default=2.0, description="seconds between two checks of a service for a new release"
    )
    serving_needs_store: Annotated[bool, BeforeValidator(_flag)] = Field(
        default=False,
        description="whether a service is ready only after the store has named its model; otherwise it starts from "
        "what its machine has of the last release, or from the model that came with the Bento",
    )
    serving_keys: Annotated[tuple[str, ...], BeforeValidator(_public_keys)] = Field(
        default=(),
        description="public keys, separated by commas, one of which must have signed what a service follows; none: "
        "signatures are not checked",
    )
    signing_key: SecretStr | None = Field(
        default=None, description="private key that signs releases and verdicts, in PEM; None: they are not signed"
    )
    signing_key_file: Annotated[Path | None, AfterValidator(_absolute)] = Field(
        default=None, description="file with that key, which `driftline keys` makes, or a Secret mounted as a file"
    )
    serving_digest: Annotated[
        str | None,
        expect("the 64 hexadecimal digits of a bundle's digest", _DIGEST.fullmatch),
    ] = Field(
        default=None, description="the one bundle that a service serves, following no release; None to follow releases"
    )
    serving_ships: Annotated[bool, BeforeValidator(_flag)] = Field(
        default=False,
        description="whether a service sends its prediction log to the store; `true` by default in a cluster",
    )
    serving_ship_s: Annotated[float, number_from(0.05)] = Field(
        default=10.0,
        description="seconds after which an answer is sent to the store at the latest: what a node that dies may lose",
    )
    serving_goodbye_s: Annotated[float, number_from(0.05)] = Field(
        default=8.0, description="seconds for which a service that ends tries to send the rest of its prediction log"
    )
    # An emptyDir above its limit gets the pod evicted with all answers in it, so a replica must refuse before that.
    serving_room_bytes: Annotated[int | None, expect("a whole number of at least 1", lambda count: count >= 1)] = Field(
        default=None,
        description="what the volume with the prediction log may hold, its emptyDir's sizeLimit; None: the size of its "
        "file system",
    )
    # Probes that wait for an overloaded loop would take a busy replica away.
    serving_probes_port: Annotated[int | None, expect("a port from 1 to 65535", _is_port)] = Field(
        default=None, description="port of a service's probes and metrics; None: the one after the service's own"
    )
    serving_name: str | None = Field(
        default=None,
        description="name of a service's server in what it sends to the store, its pod's with the namespace; None: the "
        "host's name",
    )
    # Alone it would mean a wait of .08 s with one core and of .4 s with a fifth of one, hence serving_wait_s.
    serving_in_flight: Annotated[int, expect("a whole number of at least 1", lambda count: count >= 1)] = Field(
        default=256, description="requests under way in one service process, beyond which more get 503"
    )
    serving_wait_s: Annotated[float, number_from(0.001)] = Field(
        default=0.5,
        description="seconds that a request may wait for those ahead of it; one that would wait longer gets 503",
    )
    serving_drain_s: Annotated[float, number_from(0)] = Field(
        default=0.0,
        description="for how long a service that was asked to end is not ready and still answers; 5 in a cluster",
    )
    serving_callers: Annotated[Path | None, AfterValidator(_absolute)] = Field(
        default=None,
        description="file of callers, TOML: names and the sha256 of their API keys; None: everybody may ask",
    )
    # The daemon's 5 s between two rounds are a constant of Dagster's, without a setting.
    sensor_patience_s: Annotated[float, number_from(0)] = Field(
        default=0.0,
        description="for how long a tick that found nothing to do goes on looking, so that a replay does not wait for "
        "the daemon's next round (every 5 s); stay below that",
    )
    alertmanager: Annotated[SecretStr | None, AfterValidator(_secret_address)] = Field(
        default=None,
        description="address of the Alertmanager that gets alerts, of each one of a cluster with commas; a secret",
    )
    alertmanager_labels: Annotated[str | None, expect("labels as NAME=VALUE with commas", _METRIC_LABELS.fullmatch)] = (
        Field(
            default=None,
            description="labels that your Prometheus gives all its alerts (`external_labels`), `NAME=VALUE` with "
            "commas: with them ours are the same alerts; in a cluster, `namespace` is among them",
        )
    )
    dagster_url: Annotated[str | None, expect("an http or https address", is_address)] = Field(
        default=None,
        description="address of Dagster's UI, of which `driftline exporter` and `driftline doctor dagster` ask which "
        "code locations are loaded; None: nobody asks",
    )
    namespace: str = Field(default="driftline", description="Kubernetes namespace of the pods of steps")
    # With its digest, because a tag may point to another image tomorrow.
    trainer_image: str | None = Field(
        default=None,
        description="image of steps that run as pods, with its digest: `name@sha256:...`; None: that of "
        "the run's own pod",
    )
    # Nobody can read a label through a kubelet; by the image's digest instead, each new image would abandon all saves.
    trainer_libraries: str | None = Field(
        default=None, description="versions on that image's label, where no label can be read: `numpy=... torch=...`"
    )
    service_image: str | None = Field(
        default=None, description="image of services that run as pods, with its digest: `name@sha256:...`"
    )
    service_networks: Annotated[str | None, AfterValidator(_networks)] = Field(
        default=None,
        description="networks outside of Kubernetes, with commas, that may call services that run as pods and read "
        "their metrics: of a load balancer, or of a Prometheus elsewhere; None: only pods with the labels",
    )
    scraper_namespace: Annotated[str, expect("the name of a Kubernetes namespace", _NAMESPACE.fullmatch)] = Field(
        default="monitoring", description="namespace of the pods that may read the metrics of services"
    )
    scraper_label: Annotated[str, expect("a label as NAME=VALUE", _LABEL.fullmatch)] = Field(
        default="app.kubernetes.io/name=prometheus", description="label of these pods"
    )
    # A network policy is judged after a Service's port is replaced by its pods': CoreDNS on 5353 needs 5353.
    dns_port: Annotated[int, expect("a port from 1 to 65535", _is_port)] = Field(
        default=5353,
        description="port on which the pods of Kubernetes' DNS listen, if it is not 53: services may ask both",
    )
    # Steps run a team's code: with the platform's own key all of eight forged records and eight deletions succeeded.
    step_secret: str | None = Field(
        default=None,
        description="Kubernetes secret whose entries become the environment of steps, such as S3 access keys; "
        "`{product}` in it stands for the product's name with dashes",
    )
    step_service_account: str | None = Field(
        default=None,
        description="service account of the pods of steps, for a cloud's workload identity; its token is not mounted; "
        "`{product}` in it stands for the product's name with dashes",
    )
    step_priority_class: str | None = Field(
        default=None, description="PriorityClass of the pods of steps whose profile names none"
    )
    spot_priority_class: str | None = Field(default=None, description="the same for profiles of spot nodes")
    # A share of a time-sliced GPU has the whole GPU's memory in reach, and would take it from the other shares.
    gpu_memory_gb: Annotated[
        float | None,
        expect(
            "a positive number of 10^9 bytes, or empty for all of it", lambda size: size is None or 0 < size < math.inf
        ),
    ] = Field(
        default=None,
        description="what a training may take of its GPU's memory, in 10^9 bytes; launchers set it from the profile",
    )
    store_environment: Annotated[tuple[tuple[str, str], ...], AfterValidator(_store_variables)] = Field(
        default=(),
        description="variables of the S3 clients that are not secrets, as pairs; for steps elsewhere",
    )
    # Without `show`, one file that fails takes all products of the code location away.
    broken_products: Annotated[Literal["refuse", "show"], one_of(*BROKEN_PRODUCTS)] = Field(
        default="refuse",
        description="what happens to a product's file that cannot be loaded: `refuse` to load any, or `show` it as one "
        "placeholder asset and load the others",
    )
    # By itself Dagster evaluates a check once per run over a range, with no partition.
    checks_per_key: Annotated[bool, BeforeValidator(_flag)] = Field(
        default=True,
        description="whether checks of keyed assets are recorded key by key, by a preview of Dagster's; otherwise once "
        "per run",
    )
    log_format: Annotated[Literal["text", "json"], one_of(*LOG_FORMATS)] = Field(
        default="text",
        description="how processes write their logs: `text`, or `json`, one line per record, with which a service also "
        "writes one line per answer",
    )
    profiles: Path | None = Field(
        default=None, description="file that changes profiles or adds some, after resources/profiles.toml"
    )

    @property
    def has_product_accounts(self) -> bool:
        """Tell whether steps and services of each product have an account and an access key to the store of their "
        "own.
        """
        return PRODUCT in (self.step_service_account or "") + (self.step_secret or "")

    @property
    def has_authorities(self) -> bool:
        """Tell whether steps elsewhere trust the authorities in the folder `AUTHORITIES`, which they then need."""
        return any(name in AUTHORITY_VARIABLES for name, _ in self.store_environment)

    @property
    def alertmanager_addresses(self) -> list[str]:
        """The address of each Alertmanager."""
        return re.split(", *(?=https?:)", self.alertmanager.get_secret_value()) if self.alertmanager else []

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
    def serving_kept(self) -> Path:
        """The folder in which services keep the last good model of each product."""
        return self.state / "serving"

    @property
    def scratch(self) -> Path:
        """A folder for unfinished training checkpoints and other files that may be lost."""
        return self.state / "scratch"

    def probes_port(self, port: int) -> int:
        """Return the port of the probes of a service that listens on `port`."""
        return port + 1 if self.serving_probes_port is None else self.serving_probes_port

    @classmethod
    def sentence(cls, field: str, text: str, _instance: str = "") -> str:
        """Return the message for a field, by the variable that sets it."""
        return f"{variable(field)} {text}."

    @staticmethod
    def from_environment(environ: Mapping[str, str] | None = None) -> Settings:
        """Return the settings of the environment. An empty variable counts as unset.

        Args:
            environ: the variables to read; the process's own by default.

        Raises:
            SettingsProblem: names the variable, its value and what was expected.
        """
        environ = os.environ if environ is None else environ
        variables = {field: variable(field) for field in Settings.model_fields}
        values: dict[str, Any] = {field: environ[name] for field, name in variables.items() if environ.get(name)}
        is_cluster = values.get("environment") == "cluster"
        values.setdefault("state", str(state_folder(environ)))
        if is_cluster:
            values.setdefault("launcher", "kubernetes")
            values.setdefault("serving_ships", "true")
            values.setdefault("serving_drain_s", "5")
        else:
            values.setdefault("root", str(Path(values["state"]).absolute() / "store"))
        if "root" not in values:
            raise SettingsProblem("DRIFTLINE_ROOT is not set; with DRIFTLINE_ENV=cluster it must name an s3:// URL.")
        values["broken_products"] = "show" if shows_broken_products(environ) else "refuse"
        values["profiles"] = profiles_file(environ)
        return Settings(
            **values,
            store_environment=tuple(
                (name, text)
                for name in STORE_VARIABLES
                if (text := environ.get(name))
                # A file elsewhere is one that only this machine has.
                and (name not in AUTHORITY_VARIABLES or os.path.normpath(text).startswith(f"{AUTHORITIES}/"))
            ),
        )

    def to_environment(self) -> dict[str, str]:
        """Return the variables that give a child process these settings.

        Without secrets, because a shell prints them; without the file of profiles, which a pod does not have.
        """
        fields = [field for field in Settings.model_fields if field not in _NOT_EXPORTED]
        variables = {f"DRIFTLINE_{field.upper()}": _as_text(getattr(self, field)) for field in fields}
        homes = {"DAGSTER_HOME": str(self.dagster_home), "BENTOML_HOME": str(self.bentoml_home)}
        # BentoML's opt-out must read exactly `true`.
        libraries = {"DAGSTER_EVENT_BATCH_SIZE": str(EVENTS_AT_ONCE), "BENTOML_DO_NOT_TRACK": "true"}
        return {"DRIFTLINE_ENV": self.environment, **variables, **homes, **libraries}

    def child_environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the whole environment of a child process: this process's own, these settings, and `more`."""
        hidden = {name: getattr(self, name) for name in _SECRETS}
        secrets = {variable(name): value.get_secret_value() for name, value in hidden.items() if value}
        profiles = {"DRIFTLINE_PROFILES": str(self.profiles)} if self.profiles else {}
        return {**os.environ, **self.to_environment(), **secrets, **profiles, **(more or {})}


_SECRETS = ("alertmanager", "signing_key")
_NOT_EXPORTED = ("environment", *_SECRETS, "profiles", "store_environment")
"""Settings whose variables have other names, hold secrets, or name a file of this machine."""


def dagster_home_named() -> Path | None:
    """Return the home that Dagster's own variable names, None without one."""
    named = os.environ.get("DAGSTER_HOME")
    return Path(named) if named else None


def variable(field: str) -> str:
    """Return the environment variable of a field, or the empty text for those that the S3 client's variables set."""
    if field in STORE_VARIABLES:
        return field
    if field == "store_environment":
        return ""
    return "DRIFTLINE_ENV" if field == "environment" else f"DRIFTLINE_{field.upper()}"


def profiles_file(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the file that changes profiles; None without `DRIFTLINE_PROFILES`."""
    name = (os.environ if environ is None else environ).get("DRIFTLINE_PROFILES")
    return Path(name).absolute() if name else None


def deployment_profiles() -> Path | None:
    """Return the checkout's own file of profiles; None in a guest project, which has no such folder of ours."""
    path = REPOSITORY / "resources" / "profiles.toml"
    return path if path.exists() else None


def mlflow_variables() -> dict[str, str]:
    """Return MLflow's own variables by name, so that trainings are exported; none without an address."""
    variables = {name: os.environ[name] for name in MLFLOW_VARIABLES if os.environ.get(name)}
    return variables if TRACKING in variables else {}


def postgres_options() -> dict[str, str]:
    """Return what libpq needs to connect to Dagster's PostgreSQL, by libpq's names.

    Raises:
        SettingsProblem: a variable is missing.
    """
    names = {"host": "HOST", "port": "PORT", "dbname": "DB", "user": "USER", "password": "PASSWORD"}
    options = {option: os.environ.get(f"DAGSTER_PG_{name}", "") for option, name in names.items()}
    missing = [f"DAGSTER_PG_{names[option]}" for option, value in options.items() if not value]
    if missing:
        raise SettingsProblem(f"{', '.join(missing)} must be set: where Dagster's PostgreSQL is, and who asks it.")
    return options


def kubernetes_address() -> tuple[str, int] | None:
    """Return where a pod finds Kubernetes' API; None outside of a cluster."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    return (host, int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))) if host else None


def profile_variables() -> dict[str, str]:
    """Return the variables that set one field of one profile each, by name."""
    return {name: text for name, text in sorted(os.environ.items()) if name.startswith(PROFILE_VARIABLE) and text}


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder `Settings.state`, for whoever must not depend on any other setting.

    A Bento or an installed package does not hold it: the one is exported, the other may not be writable.

    Raises:
        SettingsProblem: nothing says where.
    """
    environ = os.environ if environ is None else environ
    if environ.get("DRIFTLINE_STATE"):
        return Path(environ["DRIFTLINE_STATE"])
    if (REPOSITORY / "pyproject.toml").exists():
        return REPOSITORY / ".driftline"
    state_home = environ.get("XDG_STATE_HOME", "")
    if state_home.startswith("/"):  # by its specification, others do not count
        return Path(state_home, "driftline")
    try:
        return Path.home() / ".local/state/driftline"
    except RuntimeError:
        raise SettingsProblem("DRIFTLINE_STATE is not set, and this user has no home folder; set one.") from None


ONLY_PRODUCT = "DRIFTLINE_ONLY_PRODUCT"
"""Variable of a run's pod and of a demo: the product whose definitions are built, and no other's."""


def only_product() -> str | None:
    """Return the only product that the code location of this process has; None: all of them."""
    return os.environ.get(ONLY_PRODUCT) or None


def has_display() -> bool:
    """Return whether a browser that is started here can be seen."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def checks_per_key(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether checks of keyed assets are recorded key by key; not only where definitions are made.

    Raises:
        SettingsProblem: the variable is neither `true` nor `false`.
    """
    text = (os.environ if environ is None else environ).get("DRIFTLINE_CHECKS_PER_KEY") or "true"
    if text not in ("true", "false"):
        raise SettingsProblem(f"DRIFTLINE_CHECKS_PER_KEY {unexpected(text, 'one of true, false')}.")
    return text == "true"


def log_format() -> str:
    """Return how this process writes its log, before it reads any other setting.

    Raises:
        SettingsProblem: the variable is none of `LOG_FORMATS`.
    """
    text = os.environ.get("DRIFTLINE_LOG_FORMAT") or "text"
    if text not in LOG_FORMATS:
        raise SettingsProblem(f"DRIFTLINE_LOG_FORMAT is {text!r}; expected one of {', '.join(LOG_FORMATS)}.")
    return text


def shows_broken_products(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the code location shows a broken product's file as a placeholder; otherwise it refuses to load.

    Servers and their runs show it: those of the cluster by `DRIFTLINE_ENV`, those of `driftline dev` and the demo by
    `DRIFTLINE_BROKEN_PRODUCTS`, which their runs inherit. Everything else refuses: CI, tests, builds of images, and
    `dagster definitions validate` wherever it runs, for which Dagster sets a variable of its own.
    """
    environ = os.environ if environ is None else environ
    is_cluster = environ.get("DRIFTLINE_ENV") == "cluster"
    choice = environ.get("DRIFTLINE_BROKEN_PRODUCTS") or ("show" if is_cluster else "refuse")
    if choice not in BROKEN_PRODUCTS:
        raise SettingsProblem(f"DRIFTLINE_BROKEN_PRODUCTS is {choice!r}; expected one of {', '.join(BROKEN_PRODUCTS)}.")
    return choice == "show" and not is_validating(environ)


def is_validating(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether Dagster's command line loads the definitions to validate them."""
    return bool((os.environ if environ is None else environ).get("DAGSTER_IS_DEFS_VALIDATION_CLI"))


def bare_environment() -> dict[str, str]:
    """Return the environment of a child process that runs foreign content: our imports, and no secret."""
    names = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
    paths = os.pathsep.join([str(REPOSITORY), *(path for path in sys.path if path)])
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    return {
        **{name: os.environ[name] for name in names if name in os.environ},
        **threads,
        "PYTHONPATH": paths,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _as_text(value: str | bool | float | Path | tuple[str, ...] | None) -> str:
    """Return a setting as its variable's text."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
