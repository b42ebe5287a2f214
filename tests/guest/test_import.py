"""Importing the component, and loading a product by it, leaves the process of a host as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles import hosts
from tests.doubles.hosts import Host

pytestmark = pytest.mark.slow

HEAVY = (
    *("bentoml", "boto3", "botocore", "dagster_webserver", "kubernetes", "lightgbm", "matplotlib", "onnx"),
    *("onnxruntime", "sklearn", "torch"),
)
COMPONENT = "import driftline\nassert driftline.ProductComponent"
PRODUCT = """
import dagster as dg
from driftline import ProductComponent

defs = dg.build_defs_for_component(ProductComponent(module="shop.defs.live_parts.product"))
assert len(defs.resolve_asset_graph().get_all_asset_keys()) > 10
"""
STEPS = "import platform_assets.launch.train, platform_assets.training.steps.export"
"""What starts before a learner is known."""
BLOCKED = """
import sys
from importlib.machinery import ModuleSpec


class Refusing:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] in {heavy} else None

    def create_module(self, spec):
        raise AssertionError(f"{{spec.name}} is imported")

    def exec_module(self, module): ...


sys.meta_path.insert(0, Refusing())
"""
UNCHANGED = """
import gc, logging, multiprocessing, multiprocessing.context, os, signal, sys, threading, warnings
import dagster, dagster.components, polars


def loggers():
    named = [logging.root, *(item for _, item in sorted(logging.root.manager.loggerDict.items()))]
    return {item.name: (item.level, list(item.handlers), item.propagate, item.disabled)
            for item in named if isinstance(item, logging.Logger)}


def state():
    return {
        "collector": (gc.get_freeze_count(), gc.get_threshold(), gc.isenabled()),
        "method": multiprocessing.get_start_method(allow_none=True),
        "processes": {(module.__name__, name): (kind, kind._Popen, kind.__init__, kind.start)
                      for module in (multiprocessing, multiprocessing.context)
                      for name, kind in vars(module).items() if name.endswith("Process")},
        "disabled": logging.root.manager.disable,
        "logging": logging.getLoggerClass(),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook, sys.getswitchinterval()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
    }


before, named = state(), loggers()
{action}
after = state()
for name in before:
    assert after[name] == before[name], (name, before[name], after[name])
assert {name: loggers()[name] for name in named} == named, "loggers"
assert not [name for name, (level, handlers, *_) in loggers().items() if name not in named and handlers
            and name.split(".")[0] in ("driftline", "platform_assets")]
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    host = hosts.project(tmp_path_factory.mktemp("host") / "shop")
    host.add("live_parts")
    return host


@pytest.mark.costly
@pytest.mark.parametrize("code", [COMPONENT, PRODUCT, STEPS], ids=["component", "product", "steps"])
def test_it_imports_nothing_that_an_extra_brings(code: str, host: Host) -> None:
    host.run(code=BLOCKED.format(heavy=set(HEAVY)) + code)


@pytest.mark.costly
@pytest.mark.parametrize("code", [COMPONENT, PRODUCT], ids=["component", "product"])
def test_it_changes_nothing_of_the_process(code: str, host: Host) -> None:
    host.run(code=UNCHANGED.replace("{action}", code))


@pytest.mark.costly
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("import gc; gc.freeze()", "collector"),
        ("class Other(multiprocessing.Process): ...\nmultiprocessing.Process = Other", "processes"),
        ("logging.getLogger('dagster').addHandler(logging.NullHandler())", "loggers"),
        ("warnings.simplefilter('ignore')", "warnings"),
        ("os.environ['A'] = 'b'", "environment"),
    ],
)
def test_a_change_is_noticed(change: str, expected: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", UNCHANGED.replace("{action}", change)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "AssertionError" in ended.stderr
    assert expected in ended.stderr
