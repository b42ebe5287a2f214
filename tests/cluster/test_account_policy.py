"""What a pod with one of our accounts or secrets may be, whoever creates it: the policy `driftline-accounts`.

The daemon's jobs are those that its launcher makes of queued rows, and the pods of `driftline-retrain` those of its
launcher of steps, each changed in one thing. They are sent as dry runs, which the API server judges like any other.
What that account may make and delete besides pods is judged by `driftline-gangs`.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from kubernetes import client

from platform_assets.base.settings import AUTHORITY_VARIABLES, Settings
from platform_assets.engine.outside import Work
from platform_assets.kubernetes.api import ATTEMPT
from platform_assets.launch.endings import first_try
from platform_assets.launch.profiles import PROFILES
from tests.cluster import accounts, gangs, guards, pods, run_launcher
from tests.cluster.cluster import Cluster
from tests.cluster.gangs import Gang
from tests.cluster.rights import CODE, DAEMON, RUN
from tests.cluster.step_runs import pod_of
from tests.cluster.waiting import wait_until

NAME, GANGS = "driftline-accounts", "driftline-gangs"
FOREIGN = "evil.example/tool@sha256:" + "0" * 64
CA = "driftline-ca"
NONE: Mapping[str, str] = {}
Object = dict[str, Any]
GROUPS = (client.AppsV1Api, client.BatchV1Api, client.NetworkingV1Api)
Change = Callable[[Object, Object], object]
"""Changes a pod's metadata and spec."""


@dataclass(frozen=True)
class Guarded:
    """A namespace in which the policy is in force.

    Attributes:
        image: of the platform, by digest; also the trainer's.
        jobs: of the daemon, by their account.
    """

    cluster: Cluster
    namespace: str
    image: str
    jobs: dict[str, Object]

    def refusal(self, account: str | None, kind: str, body: Object) -> str:
        """Return why an object is refused to an account, or to an administrator; empty if it is not."""
        return self._refusal(account, f"create_namespaced_{kind}", self.namespace, body)

    def refusal_of_deletion(self, account: str | None, job: str) -> str:
        """Return why an account, or an administrator, may not delete a Job; empty if it may."""
        return self._refusal(account, "delete_namespaced_job", job, self.namespace)

    def _refusal(self, account: str | None, method: str, *arguments: object) -> str:
        api = self._api(account)
        group = next(g for g in (*GROUPS, client.CoreV1Api) if hasattr(g, method))(api)
        try:
            getattr(group, method)(*arguments, dry_run="All")
        except client.ApiException as problem:
            return str(problem.body)
        return ""

    def _api(self, account: str | None) -> client.ApiClient:
        if account is None:
            return self.cluster.api
        return client.ApiClient(accounts.configuration_of(self.cluster, account, self.namespace))

    def gang(self) -> Gang:
        """Return the objects of an attempt at a step on two nodes."""
        return gangs.gang(self.cluster.api, self.step())

    def step(self, variables: Mapping[str, str] = NONE) -> Object:
        """Return the pod of an attempt at a step, of a run with these variables too."""
        environment = {
            "DRIFTLINE_NAMESPACE": self.namespace,
            "DRIFTLINE_TRAINER_IMAGE": self.image,
            "DRIFTLINE_STEP_SECRET": "driftline-store-step-{product}",
            "DRIFTLINE_STEP_SERVICE_ACCOUNT": "driftline-step",
            "DRIFTLINE_STEP_PRIORITY_CLASS": "driftline-step",
            **variables,
        }
        work = Work(product="flight_delays", step="train", cutoff="2013-07-01", fingerprint="ab" * 32)
        return dict(pod_of(Settings.from_environment(environment), first_try(PROFILES["cpu_small"]), work))


@pytest.fixture(scope="module")
def guarded(cluster: Cluster, shell: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    from tests.cluster.namespaces import fresh_namespace

    folder = tmp_path_factory.mktemp("policy")
    with cluster.network(), fresh_namespace(cluster.core) as namespace, accounts.granted(cluster, namespace):
        cluster.core.patch_namespace(namespace, {"metadata": {"labels": {"driftline/accounts": "guarded"}}})
        run_launcher.prepare(cluster.core, namespace)
        with guards.applied(cluster, folder, _policy(shell, cluster.registry.address)):
            jobs = _jobs(cluster, namespace, shell, folder)
            made = Guarded(cluster, namespace, shell, jobs)
            evil = _changed(jobs["driftline-retrain"], "job", lambda _, spec: _container(spec).update(image=FOREIGN))
            wait_until(lambda: made.refusal(DAEMON, "job", evil) != "", 60, "the policy counts")
            yield made


def _policy(image: str, registry: str) -> list[Object]:
    """Return the policies of the overlay with this cluster's values, as `components/substitutions` writes them."""
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    items = [item for item in guards.objects("any", *kinds) if item["metadata"]["name"] in (NAME, GANGS)]
    values = {"platform": image, "registries": registry, "stepSecret": "driftline-store-step-{product}"}
    for variable in (variable for item in items for variable in item["spec"].get("variables", ())):
        if variable["name"] in values:
            before, _, after = variable["expression"].split("'", 2)
            variable["expression"] = f"{before}'{values[variable['name']]}'{after}"
    return items


def _jobs(cluster: Cluster, namespace: str, image: str, folder: Path) -> dict[str, Object]:
    """Return what the daemon creates for queued rows; it does create them, so that controllers make their pods."""
    (folder / "dagster").mkdir()
    batch, jobs = client.BatchV1Api(cluster.api), {}
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        launcher = run_launcher.launcher_of(cluster, namespace, DAEMON, image, folder, instance)
        ids = [run_launcher.launch(launcher, instance, stage).run_id for stage in ("features", "checkpoint", "release")]
        ids.append(run_launcher.launch(launcher, instance, location="theirs", image=image).run_id)
    for run_id in ids:
        job = batch.read_namespaced_job(f"dagster-run-{run_id}", namespace)
        body = client.ApiClient().sanitize_for_serialization(job)
        template = body["spec"]["template"]
        for label in ("controller-uid", "job-name"):
            template["metadata"]["labels"].pop(label, None)
            template["metadata"]["labels"].pop(f"batch.kubernetes.io/{label}", None)
        spec = {"backoffLimit": 0, "template": template}
        jobs[template["spec"]["serviceAccountName"]] = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "probe"},
            "spec": spec,
        }
    return jobs


def _changed(body: Object, kind: str, change: Change) -> Object:
    own = copy.deepcopy(body)
    pod = own["spec"]["template"] if kind == "job" else own
    change(pod["metadata"], pod["spec"])
    return own


def _container(spec: Object) -> Object:
    container: Object = spec["containers"][0]
    return container


def _secret_ways(name: str) -> dict[str, Change]:
    """Return every way in which a pod can read a secret."""
    key = {"name": "K", "valueFrom": {"secretKeyRef": {"name": name, "key": "K"}}}

    def mounted(volume: Object) -> Change:
        return lambda _, spec: spec.setdefault("volumes", []).append({"name": "extra", **volume})

    def second(field: str) -> Change:
        def change(_: Object, spec: Object) -> None:
            container = copy.deepcopy(_container(spec)) | {"name": "extra", "envFrom": [{"secretRef": {"name": name}}]}
            spec.setdefault(field, []).append(container)

        return change

    return {
        f"{name} as variables": lambda _, spec: (
            _container(spec).setdefault("envFrom", []).append({"secretRef": {"name": name}})
        ),
        f"{name} as a variable": lambda _, spec: _container(spec).setdefault("env", []).append(key),
        f"{name} as a volume": mounted({"secret": {"secretName": name}}),
        f"{name} in a projected volume": mounted({"projected": {"sources": [{"secret": {"name": name}}]}}),
        f"{name} of a driver": mounted({"csi": {"driver": "x.example", "nodePublishSecretRef": {"name": name}}}),
        f"{name} in a second container": second("containers"),
        f"{name} in an init container": second("initContainers"),
        f"{name} to pull images": lambda _, spec: spec.update(imagePullSecrets=[{"name": name}]),
    }


def _token(**source: Any) -> Change:
    projected = {"sources": [{"serviceAccountToken": {"path": "token", **source}}]}
    return lambda _, spec: spec.setdefault("volumes", []).append({"name": "token", "projected": projected})


def _field(name: str, value: Any) -> Change:
    return lambda _, spec: _container(spec).update({name: value})


def _volume(kind: str = "configMap", **source: Any) -> Change:
    return lambda _, spec: spec["volumes"].append({"name": "evil", kind: source})


def _variable(name: str, value: str) -> Change:
    return lambda _, spec: _container(spec)["env"].append({"name": name, "value": value})


def _image(old: str, new: str) -> Change:
    return lambda _, spec: _container(spec).update(image=_container(spec)["image"].replace(old, new, 1))


def _label(name: str, value: str) -> Change:
    return lambda metadata, _: metadata["labels"].update({name: value})


def _mounted(mount: Object, **volume: Any) -> Change:
    def change(_: Object, spec: Object) -> None:
        spec["volumes"].append({"name": "evil", **(volume or {"emptyDir": {}})})
        _container(spec)["volumeMounts"].append({"name": "evil", **mount})

    return change


def _annotated(metadata: Object, spec: Object) -> None:
    """Have Python execute an annotation when it starts."""
    metadata.setdefault("annotations", {})["code"] = "import os; os.system('env')"
    item = {"path": "sitecustomize.py", "fieldRef": {"fieldPath": "metadata.annotations['code']"}}
    volume = {"projected": {"sources": [{"downwardAPI": {"items": [item]}}]}}
    _mounted({"mountPath": "/var/run/secrets/evil"}, **volume)(metadata, spec)


def _read_and_pulled(name: str) -> Change:
    def change(_: Object, spec: Object) -> None:
        spec["imagePullSecrets"] = [{"name": name}]
        _container(spec).setdefault("envFrom", []).append({"secretRef": {"name": name}})

    return change


def _of_product(product: str, labelled: str) -> Change:
    """Have a job of a product run in a pod with a product's and a team's labels."""

    def change(metadata: Object, spec: Object) -> None:
        arguments = _container(spec)["args"]
        arguments[4] = f"{arguments[5]}__{product}"
        metadata.setdefault("labels", {}).update({"driftline/product": labelled, "driftline/team": "science"})

    return change


PROBE = {"exec": {"command": ["sh", "-c", "id"]}}
LABELS: dict[str, Change] = {
    "as the proxy": _label("driftline/proxy", "true"),
    "as a caller": _label("driftline/caller", "true"),
    "as the code server": _label("app.kubernetes.io/component", "code"),
    "as a part": _label("app.kubernetes.io/part-of", "driftline"),
}
PRIORITIES: dict[str, Change] = {
    f"priority {name}": (lambda _, spec, name=name: spec.update(priorityClassName=name))
    for name in ("driftline-platform", "system-cluster-critical")
} | {"no priority": lambda _, spec: spec.pop("priorityClassName")}
OF_RUNS: dict[str, Change] = {
    **LABELS,
    **_secret_ways("driftline-store-release"),
    "of a step": _label("app.kubernetes.io/component", "step"),
    "another run's label": _label("dagster/run-id", "another"),
    "another product": _of_product("flight_delays", "orders"),
    "as a bento": _label("driftline/bento", "sha256"),
    "image": _field("image", FOREIGN),
    "image with our name in front": _image("@", "-evil@"),
    "command": _field("command", ["sh", "-c", "id"]),
    "arguments": _field("args", ["sh", "-c", "id"]),
    "no arguments": lambda _, spec: _container(spec).pop("args"),
    "more arguments": lambda _, spec: _container(spec)["args"].append("x"),
    "module": lambda _, spec: _container(spec)["args"].__setitem__(2, "http.server"),
    "another job": lambda _, spec: _container(spec)["args"].__setitem__(4, "maintain__orders"),
    "a job that is none": lambda _, spec: _container(spec)["args"].__setitem__(4, "evil__orders"),
    # The kubelet replaces $(NAME) by the variable's value, which the refusal of the row would show.
    "a secret's value as its job": lambda _, spec: _container(spec)["args"].__setitem__(
        4, f"{_container(spec)['args'][5]}__$(DRIFTLINE_SIGNING_KEY)"
    ),
    "working directory": _field("workingDir", "/tmp"),
    "message's path": _field("terminationMessagePath", "/app/resources/own_runs.py"),
    "hook": _field("lifecycle", {"postStart": PROBE}),
    "liveness": _field("livenessProbe", PROBE),
    "readiness": _field("readinessProbe", PROBE),
    "startup": _field("startupProbe", PROBE),
    "variable": _variable("PYTHONPATH", "/tmp"),
    "region with an address": _variable("AWS_REGION", "evil.example/x?"),
    "variable of a variable": _variable("AWS_ROLE_ARN", "$(DRIFTLINE_SIGNING_KEY)"),
    "variables": lambda _, spec: _container(spec)["envFrom"].append({"configMapRef": {"name": "evil"}}),
    "files over the image's": _mounted({"mountPath": "/app/resources"}),
    "files over the image's by a detour": _mounted({"mountPath": "/var/run/secrets/../../../app/resources"}),
    "path of a variable": _mounted({"mountPath": "/var/run/secrets/evil", "subPathExpr": "$(DRIFTLINE_SIGNING_KEY)"}),
    "code in an annotation": _annotated,
    "the registry's secret as variables": _secret_ways("driftline-registry")["driftline-registry as variables"],
    **PRIORITIES,
    "priority of a step": lambda _, spec: spec.update(priorityClassName="driftline-step"),
    "files": _volume(name="evil"),
    "projected files": _volume("projected", sources=[{"configMap": {"name": "evil"}}]),
    "hosts": lambda _, spec: spec.update(hostAliases=[{"ip": "192.0.2.1", "hostnames": ["postgres"]}]),
    "names": lambda _, spec: spec.update(dnsConfig={"nameservers": ["192.0.2.1"]}),
    "account of the code server": lambda _, spec: spec.update(serviceAccountName="driftline-code"),
    "account of the daemon": lambda _, spec: spec.update(serviceAccountName="driftline-daemon"),
    "account of a step": lambda _, spec: spec.update(serviceAccountName="driftline-step"),
    "no account": lambda _, spec: [spec.pop(name) for name in ("serviceAccountName", "serviceAccount")],
    "account of runs that intervene": lambda _, spec: spec.update(serviceAccountName="driftline-intervention"),
}
TOKENS: dict[str, Change] = {
    "token": lambda _, spec: spec.update(automountServiceAccountToken=True),
    "token by default": lambda _, spec: spec.pop("automountServiceAccountToken"),
    "projected token": _token(),
    "projected token for another audience": _token(audience="https://kubernetes.default.svc"),
}


def test_what_the_launcher_makes_of_rows_is_let_in_and_its_pods_too(guarded: Guarded) -> None:
    accounts_seen = {"driftline-advance", "driftline-retrain", "driftline-release", "driftline-other-run"}
    assert set(guarded.jobs) == accounts_seen
    for account, job in guarded.jobs.items():
        assert guarded.refusal(DAEMON, "job", job) == "", account

    def started() -> set[str]:
        return {
            pod.spec.service_account_name for pod in guarded.cluster.core.list_namespaced_pod(guarded.namespace).items
        }

    wait_until(lambda: started() == accounts_seen, 60, "controllers make the pods of jobs", lambda: str(started()))


@pytest.mark.parametrize("change", list(OF_RUNS | _secret_ways("driftline-signing")))
def test_a_job_of_the_daemon_that_is_no_run_as_the_launcher_makes_it_is_refused(guarded: Guarded, change: str) -> None:
    changes = OF_RUNS | _secret_ways("driftline-signing")
    for account in ("driftline-retrain", "driftline-advance"):
        if account == "driftline-retrain" and change == "driftline-signing as variables":
            continue  # it has it
        job = _changed(guarded.jobs[account], "job", changes[change])
        assert NAME in guarded.refusal(DAEMON, "job", job), account


def test_a_run_carries_its_product_and_team(guarded: Guarded) -> None:
    change = _of_product("flight_delays", "flight_delays")
    for account in ("driftline-retrain", "driftline-advance"):
        assert guarded.refusal(DAEMON, "job", _changed(guarded.jobs[account], "job", change)) == "", account


@pytest.mark.parametrize("change", list(TOKENS))
def test_only_a_run_that_trains_has_a_token(guarded: Guarded, change: str) -> None:
    for account in ("driftline-advance", "driftline-release", "driftline-other-run"):
        assert NAME in guarded.refusal(DAEMON, "job", _changed(guarded.jobs[account], "job", TOKENS[change]))
    assert guarded.refusal(DAEMON, "job", _changed(guarded.jobs["driftline-retrain"], "job", TOKENS[change])) == ""
    of_a_cloud = _changed(guarded.jobs["driftline-advance"], "job", _token(audience="sts.amazonaws.com"))
    assert guarded.refusal(DAEMON, "job", of_a_cloud) == ""


OF_OTHERS = (
    LABELS
    | PRIORITIES
    | {
        way: change
        for name in ("driftline-signing", "driftline-postgres", "driftline-store", "driftline-store-code")
        for way, change in _secret_ways(name).items()
    }
)


@pytest.mark.parametrize("change", list(OF_OTHERS))
def test_a_run_of_another_code_location_gets_nothing_of_ours(guarded: Guarded, change: str) -> None:
    job = _changed(guarded.jobs["driftline-other-run"], "job", OF_OTHERS[change])
    assert NAME in guarded.refusal(DAEMON, "job", job)


@pytest.mark.parametrize("change", ["image", "command", "variable"])
def test_a_run_of_another_code_location_may_be_what_it_likes(guarded: Guarded, change: str) -> None:
    assert guarded.refusal(DAEMON, "job", _changed(guarded.jobs["driftline-other-run"], "job", OF_RUNS[change])) == ""


OF_STEPS: dict[str, Change] = {
    **LABELS,
    "priority": PRIORITIES["priority system-cluster-critical"],
    "no priority": PRIORITIES["no priority"],
    "priority of a run": lambda _, spec: spec.update(priorityClassName="driftline-run"),
    "a secret to pull images as variables too": _read_and_pulled("registry"),
    "the registry's secret as variables too": _read_and_pulled("driftline-registry"),
    **TOKENS,
    **{
        way: change
        for name in ("driftline-signing", "driftline-store-step-orders", "other")
        for way, change in _secret_ways(name).items()
        if way != "other to pull images"
    },
    **{
        f"account {name}": (lambda _, spec, name=name: spec.update(serviceAccountName=name))
        for name in ("driftline-code", "driftline-retrain", "driftline-release", "driftline-daemon", "default")
    },
    "no account": lambda _, spec: spec.pop("serviceAccountName"),
    "account by its old name": lambda _, spec: spec.update(serviceAccount=spec.pop("serviceAccountName")[:9] + "-code"),
    "another product's secret by label": _label("driftline/product", "orders"),
    "label of a run": _label("app.kubernetes.io/component", "run"),
    "no product": lambda metadata, _: metadata["labels"].pop("driftline/product"),
    "image": _field("image", FOREIGN),
    "image of a second container": lambda _, spec: spec["containers"].append(
        _container(spec) | {"name": "b", "image": FOREIGN}
    ),
    "image of an init container": lambda _, spec: spec.update(
        initContainers=[_container(spec) | {"name": "b", "image": FOREIGN}]
    ),
    "registry with our name in front": _image("/", ".evil.example/"),
    "files": _volume(name="driftline"),
    "projected files": _volume("projected", sources=[{"configMap": {"name": "driftline"}}]),
    "files of authorities with our name in front": _volume(name="driftline-ca-evil"),
    "projected files of authorities": _volume(
        "projected", sources=[{"configMap": {"name": CA}}, {"secret": {"name": "x"}}]
    ),
    "claim": _volume("persistentVolumeClaim", claimName="x"),
}


@pytest.mark.parametrize("change", list(OF_STEPS))
def test_a_run_that_trains_creates_pods_of_steps_and_no_others(guarded: Guarded, change: str) -> None:
    """Nor do the Jobs that it creates, whose pods are not its own."""
    job = guarded.gang().job
    assert (guarded.refusal(RUN, "pod", guarded.step()), guarded.refusal(RUN, "job", job)) == ("", "")
    assert NAME in guarded.refusal(RUN, "pod", _changed(guarded.step(), "pod", OF_STEPS[change]))
    assert NAME in guarded.refusal(RUN, "job", _changed(job, "job", OF_STEPS[change]))


Act = Callable[[Gang], object]


def _job(**values: Any) -> Act:
    return lambda gang: gang.job["spec"].update(values)


def _service(**values: Any) -> Act:
    return lambda gang: gang.service["spec"].update(values)


def _policy_of(**values: Any) -> Act:
    return lambda gang: gang.policy["spec"].update(values)


PORTS = [{"port": 29400}]
OTHERS = {"podSelector": {"matchLabels": {ATTEMPT: "another"}}}
EXISTS = {"matchExpressions": [{"key": ATTEMPT, "operator": "Exists"}]}
OF = "app.kubernetes.io/component"
IS_OF_STEPS = "those whose pods have the label driftline/attempt"
GANGS_OF_OTHERS: dict[tuple[str, str], dict[str, Act]] = {
    ("job", "a Job of a step is Indexed"): {
        "retries": _job(backoffLimit=1),
        "retries by default": lambda gang: gang.job["spec"].pop("backoffLimit"),
        "retries per pod": _job(backoffLimitPerIndex=1),
        "pods without a rank": _job(completionMode="NonIndexed"),
        "pods one after the other": _job(parallelism=1),
        "pods of others": _job(manualSelector=True, selector={"matchLabels": {OF: "step"}}),
        "another controller": _job(managedBy="evil.example/controller"),
    },
    ("job", IS_OF_STEPS): {"no attempt": lambda gang: gang.job["spec"]["template"]["metadata"]["labels"].pop(ATTEMPT)},
    ("service", "a Service of a step is headless"): {
        "an address of the cluster": _service(clusterIP=None, ports=PORTS),
        "a port of every node": _service(clusterIP=None, type="NodePort", ports=PORTS),
        "a load balancer": _service(clusterIP=None, type="LoadBalancer", ports=PORTS),
        "somebody's address": _service(externalIPs=["192.0.2.1"], ports=PORTS),
        "somebody's name": _service(clusterIP=None, type="ExternalName", externalName="evil.example"),
        "a name that others look for": lambda gang: gang.service["metadata"].update(name="postgres"),
    },
    ("service", IS_OF_STEPS): {
        "a service of other pods": _service(selector={OF: "code"}),
        "a service of any address": lambda gang: gang.service["spec"].pop("selector"),
    },
    ("network_policy", IS_OF_STEPS): {
        "a policy of every pod": _policy_of(podSelector={}),
        "a policy of other pods": _policy_of(podSelector={"matchLabels": {OF: "code"}}),
        "a policy by an expression": _policy_of(podSelector=EXISTS),
    },
    ("network_policy", "a NetworkPolicy of a step selects pods"): {
        "open to everybody": _policy_of(ingress=[{}]),
        "to everybody": _policy_of(egress=[{}]),
        "to everybody on a port": _policy_of(egress=[{"ports": PORTS}]),
        "open to every pod": _policy_of(ingress=[{"from": [{"podSelector": {}}]}]),
        "to every pod": _policy_of(egress=[{"to": [{"podSelector": {}}]}]),
        "to every gang": _policy_of(egress=[{"to": [{"podSelector": EXISTS}]}]),
        "to another gang": _policy_of(egress=[{"to": [OTHERS]}]),
        "open to another gang": _policy_of(ingress=[{"from": [OTHERS]}]),
        "to another gang too": lambda gang: gang.policy["spec"]["egress"][0]["to"].append(OTHERS),
        "to addresses": _policy_of(egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]),
        "to other namespaces": lambda gang: gang.policy["spec"]["egress"][0]["to"][0].update(namespaceSelector={}),
        "a second rule for everybody": lambda gang: gang.policy["spec"]["ingress"].append({"from": []}),
    },
}
"""What an account with rights for gangs could make of them besides, by kind and by the sentence that refuses it."""
OF_GANGS = {name: (*key, act) for key, acts in GANGS_OF_OTHERS.items() for name, act in acts.items()}


@pytest.mark.parametrize("change", list(OF_GANGS))
def test_a_run_that_trains_makes_gangs_of_steps_and_nothing_else(guarded: Guarded, change: str) -> None:
    kind, sentence, act = OF_GANGS[change]
    gang = guarded.gang()
    for each, body in gang.kinds.items():
        assert guarded.refusal(RUN, each, body) == "", each
    act(gang)
    changed = gang.kinds[kind]
    refusal = guarded.refusal(RUN, kind, changed)
    assert GANGS in refusal and sentence in refusal, refusal
    assert GANGS not in guarded.refusal(None, kind, changed)


@pytest.mark.parametrize("account", [RUN, CODE])
def test_whoever_ends_the_jobs_of_steps_ends_no_others(guarded: Guarded, account: str) -> None:
    gang = guarded.gang()
    gang.create()
    (pod, *_) = guarded.cluster.core.list_namespaced_pod(guarded.namespace, label_selector="dagster/run-id").items
    other = f"dagster-run-{pod.metadata.labels['dagster/run-id']}"
    assert guarded.refusal_of_deletion(account, gang.name) == ""
    refusal = guarded.refusal_of_deletion(account, other)
    assert GANGS in refusal and IS_OF_STEPS in refusal, refusal
    assert guarded.refusal_of_deletion(None, other) == ""


def test_a_step_may_have_the_certificates_of_private_authorities(guarded: Guarded) -> None:
    files = dict.fromkeys(AUTHORITY_VARIABLES, "/etc/driftline-ca/ca.crt")
    pod = guarded.step(files)
    assert [volume["configMap"]["name"] for volume in pod["spec"]["volumes"] if "configMap" in volume] == [CA]
    assert guarded.refusal(RUN, "pod", pod) == ""


def test_a_step_may_have_a_pull_secret_of_the_cluster(guarded: Guarded) -> None:
    pod = _changed(guarded.step(), "pod", _secret_ways("registry")["registry to pull images"])
    assert guarded.refusal(RUN, "pod", pod) == ""


def test_templates_with_an_account_or_secret_of_runs_are_refused_to_everybody(guarded: Guarded) -> None:
    labels = {"app": "probe"}
    for change in (
        {"serviceAccountName": "driftline-retrain"},
        {"volumes": [{"name": "key", "secret": {"secretName": "driftline-signing"}}]},
    ):
        whole = pods.manifest("probe", guarded.image, "exit 0")
        plain = {"metadata": {"labels": labels}, "spec": whole["spec"]}
        evil = {"metadata": {"labels": labels}, "spec": whole["spec"] | change}
        for template, is_refused in ((plain, False), (evil, True)):
            always = {"metadata": template["metadata"], "spec": template["spec"] | {"restartPolicy": "Always"}}
            bodies: dict[str, Object] = {
                "pod": whole | {"spec": template["spec"]},
                "job": {"metadata": {"name": "probe"}, "spec": {"template": template}},
                "cron_job": {
                    "metadata": {"name": "probe"},
                    "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}},
                },
                "deployment": {
                    "metadata": {"name": "probe"},
                    "spec": {"selector": {"matchLabels": labels}, "template": always},
                },
                "pod_template": {"metadata": {"name": "probe"}, "template": template},
                "replication_controller": {
                    "metadata": {"name": "probe"},
                    "spec": {"selector": labels, "template": always},
                },
            }
            for kind, body in bodies.items():
                assert (NAME in guarded.refusal(None, kind, body)) is is_refused, (kind, change)


def test_no_container_is_added_to_a_run(guarded: Guarded) -> None:
    """A run of another code location has no account of ours, and may be looked into."""
    items = guarded.cluster.core.list_namespaced_pod(guarded.namespace, label_selector="dagster/run-id").items
    runs = [pod.metadata.name for pod in items if pod.spec.service_account_name != "driftline-other-run"]
    assert runs
    container = {"name": "debug", "image": guarded.image, "securityContext": pods.SECURITY}
    for name in runs:
        with pytest.raises(client.ApiException, match=NAME):
            guarded.cluster.core.patch_namespaced_pod_ephemeralcontainers(
                name, guarded.namespace, {"spec": {"ephemeralContainers": [container]}}, dry_run="All"
            )


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"containers": [{"name": "dagster", "image": FOREIGN}]}},
        {"metadata": {"labels": {"app.kubernetes.io/component": "code"}}},
    ],
    ids=["image", "label"],
)
def test_a_runs_pod_stays_what_it_was(guarded: Guarded, change: Object) -> None:
    """Whoever may change pods, as nobody of ours may, gets no key by it; controllers change a pod's metadata."""
    core, selector = guarded.cluster.core, "app.kubernetes.io/component=run"
    (name, *_) = (
        pod.metadata.name for pod in core.list_namespaced_pod(guarded.namespace, label_selector=selector).items
    )
    core.patch_namespaced_pod(name, guarded.namespace, {"metadata": {"annotations": {"seen": "yes"}}}, dry_run="All")
    with pytest.raises(client.ApiException, match=NAME):
        core.patch_namespaced_pod(name, guarded.namespace, change, dry_run="All")


WAYS_IN = {
    "pods/exec": ("create", "", "pods", "exec"),
    "pods/attach": ("create", "", "pods", "attach"),
    "pods/portforward": ("create", "", "pods", "portforward"),
    "pods/proxy": ("create", "", "pods", "proxy"),
    "ephemeral containers": ("patch", "", "pods", "ephemeralcontainers"),
    "change of a pod": ("patch", "", "pods", ""),
    "change of a job": ("patch", "batch", "jobs", ""),
    "cron job": ("create", "batch", "cronjobs", ""),
    "deployment": ("create", "apps", "deployments", ""),
    "template": ("create", "", "podtemplates", ""),
    "change of a service": ("patch", "", "services", ""),
    "addresses of a service": ("create", "discovery.k8s.io", "endpointslices", ""),
    "addresses of a service, as before": ("create", "", "endpoints", ""),
    "change of a network policy": ("patch", "networking.k8s.io", "networkpolicies", ""),
    "deletion of a service": ("delete", "", "services", ""),
    "deletion of a network policy": ("delete", "networking.k8s.io", "networkpolicies", ""),
    "network policies at once": ("deletecollection", "networking.k8s.io", "networkpolicies", ""),
    "secret": ("get", "", "secrets", ""),
    "secrets": ("list", "", "secrets", ""),
    "new secret": ("create", "", "secrets", ""),
    "config map": ("patch", "", "configmaps", ""),
    "token": ("create", "", "serviceaccounts", "token"),
    "identity": ("impersonate", "", "serviceaccounts", ""),
    "rights": ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    "the policy": ("patch", "admissionregistration.k8s.io", "validatingadmissionpolicies", ""),
    "the namespace's labels": ("patch", "", "namespaces", ""),
    "node": ("get", "", "nodes", "proxy"),
}
"""What would lead past the policy, as verb, group, resource and subresource."""


@pytest.mark.parametrize("way", list(WAYS_IN))
def test_no_account_has_a_right_that_leads_past_the_policy(guarded: Guarded, way: str) -> None:
    verb, group, resource, part = WAYS_IN[way]
    accounts_there = guarded.cluster.core.list_namespaced_service_account(guarded.namespace).items
    names = [item.metadata.name for item in accounts_there]
    assert {DAEMON, RUN, "driftline-code", "driftline-webserver"} < set(names)
    asked = {"verb": verb, "group": group, "resource": resource, "subresource": part, "namespace": guarded.namespace}
    api = client.AuthorizationV1Api(guarded.cluster.api)
    for name in names:
        user = f"system:serviceaccount:{guarded.namespace}:{name}"
        groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{guarded.namespace}"]
        review = {"spec": {"user": user, "groups": groups, "resourceAttributes": asked}}
        assert not api.create_subject_access_review(review).status.allowed, name
