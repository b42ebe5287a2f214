"""A pod's status as a kubelet shows it: conditions, container statuses, reasons and sentences; not when it does."""

from hashlib import sha256

from tests.doubles.cluster.objects import Object, Store, walk
from tests.doubles.cluster.processes import Container

ENDED = ("Succeeded", "Failed")
SHUTDOWN = "Pod was terminated in response to imminent node shutdown."
LOW_MEMORY = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 94552Ki. "
NO_DEVICE = "Allocate failed due to requested number of devices unavailable for nvidia.com/gpu. "


def set_condition(of: Object, kind: str, value: str, stamp: str, reason: str = "", message: str = "") -> None:
    """Set a condition of a pod, node or job; its transition time moves when its status does."""
    conditions = of["status"].setdefault("conditions", [])
    path = next((at for at, item in enumerate(conditions) if item["type"] == kind), len(conditions))
    old = conditions[path] if path < len(conditions) else {"status": None}
    new: Object = {"type": kind, "status": value, "lastProbeTime": None}
    new["lastTransitionTime"] = old["lastTransitionTime"] if old["status"] == value else stamp
    new |= ({"reason": reason} if reason else {}) | ({"message": message} if message else {})
    conditions[path : path + 1] = [new]


def disrupt(pod: Object, reason: str, message: str, stamp: str) -> None:
    """Mark a pod as ended from outside, as Kubernetes does since 1.26."""
    set_condition(pod, "DisruptionTarget", "True", stamp, reason, message)


def fail(pod: Object, reason: str, message: str) -> None:
    """Show that the kubelet, not a container, ended the pod."""
    pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}


def show_waiting(pod: Object, reason: str, message: str, stamp: str) -> None:
    """Show a pod on a node whose containers have not started; the first of them says why."""
    host, original = sum(pod["spec"]["nodeName"].encode()) % 250 + 1, int(pod["metadata"]["uid"][:2], 16)
    pod["status"] |= {"hostIP": f"10.0.0.{host}", "podIP": f"10.244.{host}.{original}"}
    pod["status"].setdefault("startTime", stamp)
    set_condition(pod, "Initialized", str(not pod["spec"].get("initContainers")), stamp)
    _unready(pod, "ContainersNotReady", stamp)
    for index, (field, spec) in enumerate(walk(pod)):
        waiting = {"reason": "PodInitializing" if index else reason} | ({"message": message} if message else {})
        output = pod["status"].setdefault("initContainerStatuses" if field[0] == "i" else "containerStatuses", [])
        output[:] = [item for item in output if item["name"] != spec["name"]]
        output.append(_status(spec, {"waiting": waiting}))


def show_container(pod: Object, container: Container, store: Store) -> None:
    """Show what a container does; the phase and the pod's conditions follow from it."""
    code, stamp, is_running = container.exit_code, store.stamp(), container.exit_code is None
    state: Object = {"running": {"startedAt": store.stamp(container.started_at)}}
    if not is_running:
        ended = {"startedAt": store.stamp(container.started_at), "finishedAt": store.stamp(container.ended_at)}
        state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"} | ended}
    output = pod["status"]["initContainerStatuses" if container.is_init else "containerStatuses"]
    path = [item["name"] for item in output].index(container.name)
    output[path] = _status(container.spec, state, is_running)
    if code or (code == 0 and not container.is_init):
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        _unready(pod, "PodFailed" if code else "PodCompleted", stamp)
    elif not container.is_init:
        pod["status"]["phase"] = "Running"
        for kind in ("Initialized", "Ready", "ContainersReady"):
            set_condition(pod, kind, "True", stamp)


def say_out_of_memory(pod: Object) -> None:
    for item in pod["status"]["containerStatuses"]:
        if item["state"].get("terminated", {}).get("exitCode") == 137:
            item["state"]["terminated"]["reason"] = "OOMKilled"


def _unready(pod: Object, reason: str, stamp: str) -> None:
    message = f"containers with unready status: [{pod['spec']['containers'][0]['name']}]"
    for kind in ("Ready", "ContainersReady"):
        set_condition(pod, kind, "False", stamp, reason, message if reason == "ContainersNotReady" else "")


def _status(spec: Object, state: Object, is_running: bool = False) -> Object:
    status = {"name": spec["name"], "image": spec["image"], "imageID": "", "lastState": {}, "state": state}
    status |= {"ready": is_running, "started": is_running, "restartCount": 0}
    if "waiting" not in state:
        digest = sha256(spec["image"].encode()).hexdigest()
        status |= {"imageID": f"{spec['image']}@sha256:{digest}", "containerID": f"containerd://{digest}"}
    return status
