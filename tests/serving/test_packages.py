"""A Bento names every package that its service imports: elsewhere nothing else is installed."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from platform_assets.serving.run.build import PACKAGES

pytestmark = pytest.mark.slow

MODULE = "platform_assets.serving.run.service"
IMPORTED = f"""\
import importlib.metadata, json, sys
before = set(sys.modules)
import {MODULE}
from platform_assets.serving.answer import middleware  # as a server does
from platform_assets.serving.run import assembly, metrics, probes
names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
owners = importlib.metadata.packages_distributions()
print(json.dumps(sorted({{owners[name][0] for name in names if name in owners}})))
"""


@pytest.mark.costly
def test_every_package_that_the_service_imports_comes_with_the_packages_of_a_bento() -> None:
    ended = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    imported = {_name(name) for name in json.loads(ended.stdout.splitlines()[-1])} - {"driftline"}
    assert {"bentoml", "httptools", "uvicorn"} <= imported
    assert imported - _with_dependencies(PACKAGES) == set()


@pytest.mark.costly
def test_bentos_supervisor_imports_no_arrays() -> None:
    code = f"import sys, {MODULE}; print(*sorted({{'numpy', 'prometheus_client', 'obstore'}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


SESSION = """\
import sys
import numpy as np
from onnx import TensorProto, helper
from platform_assets.product.inputs import Inputs
from platform_assets.training import estimators, export, graph
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("numeric", "answer"))
nodes = [helper.make_node("Identity", ["numeric"], ["answer"])]
model = helper.make_model(
    helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
).SerializeToString()
column = np.zeros((1, 1), dtype=np.float32)
{
    "graph": lambda: graph.session("0", model),
    "export": lambda: export.answers(model, Inputs(numeric=column, categorical=np.empty((1, 0), dtype=str)), batch=1),
    "estimators": lambda: estimators.run(model, column, 1),
}[sys.argv[1]]()
assert "onnxruntime" in sys.modules
"""


@pytest.mark.parametrize("module", ["graph", "export", "estimators"])
def test_a_session_of_onnx_runtime_reports_to_nobody(module: str, tmp_path: Path) -> None:
    """Its telemetry keeps a number of this machine and a queue of events in the home folder."""
    child = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", SESSION, module], env=child, check=False, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    assert list(tmp_path.rglob("*onnxruntime*")) == []


def _with_dependencies(packages: Iterable[str]) -> set[str]:
    """Return packages and all that they require on this machine, without extras."""
    result: set[str] = set()
    left = list(packages)
    while left:
        name = _name(left.pop())
        if name not in result:
            result.add(name)
            needed = [Requirement(line) for line in importlib.metadata.requires(name) or []]
            left += [
                requirement.name
                for requirement in needed
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            ]
    return result


def _name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
