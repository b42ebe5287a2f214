"""The smallest image for row R7: of the shipped one only the files that a service opens from its start to an answer.

It is for the measurement alone: a product with pictures or signed releases needs more, and nothing in it tells what is
wrong when something is. The base keeps Python and what it is linked with.
"""

from __future__ import annotations

import json
from pathlib import Path

from platform_assets.base.settings import REPOSITORY
from tests.cluster import trainer
from tests.doubles import models

HOOK = """\
import os, sys
_file = os.open("/tmp/opened", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def _note(event, arguments):
    if event in ("open", "import"):
        os.write(_file, f"{arguments[0 if event == 'open' else 1]}\\n".encode(errors="replace"))
sys.addaudithook(_note)
for _module in list(sys.modules.values()):
    _note("open", [getattr(_module, "__file__", None)])
"""
"""Python imports `sitecustomize` first; native libraries are in the processes' maps."""
ASK = """\
import glob, importlib, json, os, pkgutil, sys, time, urllib.request
for place in ("/app", "/bento/src"):
    sys.path.insert(0, place)
    for name in [name for _, name, _ in pkgutil.walk_packages([place])]:
        importlib.import_module(name)
body, fields = open("/hook/body.json", "rb").read(), {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:3000/predict", body, fields)
for _ in range(1200):
    try:
        assert urllib.request.urlopen(request, timeout=10).status == 200
        break
    except OSError:
        time.sleep(0.1)
else:
    raise SystemExit("no answer")
opened = set(open("/tmp/opened", errors="replace").read().splitlines())
for maps in glob.glob("/proc/[0-9]*/maps"):
    opened |= {line.split(None, 5)[5].strip() for line in open(maps) if line.count("/")}
print(json.dumps(sorted({os.path.realpath(path) for path in opened if path.startswith("/")})))
"""
FILE = """\
FROM {image} AS full
USER 0:0
COPY kept.json keep.py /
RUN ["python", "/keep.py"]
FROM scratch
COPY --from=full / /
{environment}
WORKDIR /scratch
USER 10001:10001
"""
KEEP = """\
import json, os
def source(path):
    return path.replace("__pycache__/", "").split(".cpython-")[0] + ".py" if path.endswith(".pyc") else path
kept = set(map(source, json.load(open("/kept.json"))))
for folder in ("/opt/venv", "/opt/python", "/usr/share", "/usr/lib/x86_64-linux-gnu/perl-base", "/var"):
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            real = os.path.realpath(path)
            is_start = os.path.islink(path) or "/bin/" in path or name in ("pyvenv.cfg", "driftline.pth")
            if not is_start and source(real) not in kept:
                os.unlink(path)
os.unlink("/kept.json"), os.unlink("/keep.py")
"""


def build(image: str, bento: Path, folder: Path) -> str:
    """Return the smallest image by its digest, made of a service's image by what serving a Bento opens."""
    hook = folder / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    (hook / "ask.py").write_text(ASK, encoding="utf-8")
    (hook / "body.json").write_text(json.dumps(models.row()), encoding="utf-8")
    serve = "python -m platform_assets.serving.run.pod >/tmp/log 2>&1 & python /hook/ask.py || cat /tmp/log"
    variables = {
        "PYTHONPATH": "/hook",
        "DRIFTLINE_STATE": "/tmp/state",
        "HOME": "/tmp",
    }
    options = [f"--env={name}={value}" for name, value in variables.items()]
    mounts = [f"--volume={hook}:/hook:ro", f"--volume={bento}:/bento:ro"]
    # As root, whatever rights the folders have.
    run = ["podman", "run", "--rm", "--network=none", "--user=0:0", "--workdir=/bento/src"]
    argv = [*run, *options, *mounts, image, "sh", "-c", serve]
    kept = trainer.run(argv, REPOSITORY).splitlines()[-1]
    context = folder / "smallest"
    context.mkdir()
    (context / "kept.json").write_text(json.dumps(json.loads(kept)), encoding="utf-8")
    (context / "keep.py").write_text(KEEP, encoding="utf-8")
    inspect = ["podman", "image", "inspect", "--format", "{{json .Config.Env}}", image]
    environment = "\n".join(
        f"ENV {name}={json.dumps(value)}"
        for name, _, value in (one.partition("=") for one in json.loads(trainer.run(inspect, REPOSITORY)))
    )
    text = FILE.format(image=image, environment=environment)
    name = "localhost/driftline-smallest"
    argv = [
        "podman",
        "build",
        "--quiet",
        "--pull=never",
        "--network=none",
        "--format=oci",
        f"--tag={name}:latest",
        "--file=-",
        ".",
    ]
    trainer.run(argv, context, given=text)
    inspect = ["podman", "image", "inspect", "--format", f"{name}@{{{{.Digest}}}}", f"{name}:latest"]
    return trainer.run(inspect, REPOSITORY)


def megabytes(image: str) -> float:
    """Return an image's size, unpacked."""
    return int(trainer.run(["podman", "image", "inspect", "--format", "{{.Size}}", image], REPOSITORY)) / 1e6
