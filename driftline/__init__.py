"""The public API: what a product, a notebook or another Dagster project imports. `from driftline import Product`.

Each name loads its module when it is first asked for, so importing this costs nothing. A code digest counts where a
name is defined and not this list, so a new name moves nothing.
"""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; a test compares it with NAMES
    from platform_assets.automation.conditions import for_each_key as for_each_key
    from platform_assets.automation.factory import build_defs as build_defs
    from platform_assets.base.keys import BatchGrain as BatchGrain
    from platform_assets.base.keys import DailyGrain as DailyGrain
    from platform_assets.base.keys import HourlyGrain as HourlyGrain
    from platform_assets.base.naming import UNPARTITIONED as UNPARTITIONED
    from platform_assets.base.naming import snake_case as snake_case
    from platform_assets.base.settings import Settings as Settings
    from platform_assets.components import ProductComponent as ProductComponent
    from platform_assets.data import images as images
    from platform_assets.data.channels.dealt_file import DealtFile as DealtFile
    from platform_assets.data.channels.object_prefix import ObjectPrefix as ObjectPrefix
    from platform_assets.data.channels.one_file import OneFile as OneFile
    from platform_assets.data.channels.sql_window import SqlWindow as SqlWindow
    from platform_assets.data.delimited import read_csv as read_csv
    from platform_assets.data.feature_blocks import Timeline as Timeline
    from platform_assets.data.feature_blocks import cycle as cycle
    from platform_assets.data.feature_blocks import if_known as if_known
    from platform_assets.data.feature_blocks import minute_of_day as minute_of_day
    from platform_assets.data.feature_blocks import minutes_between as minutes_between
    from platform_assets.data.feature_blocks import open_spans as open_spans
    from platform_assets.data.landed import UnreadableFile as UnreadableFile
    from platform_assets.data.validation import MOMENT_FORMAT as MOMENT_FORMAT
    from platform_assets.data.validation import null_together as null_together
    from platform_assets.data.validation import rule as rule
    from platform_assets.demo import replay as replay
    from platform_assets.engine.product_files import load as load_product
    from platform_assets.engine.store_resource import StoreResource as Store
    from platform_assets.notebook import open_product as open  # noqa: A004  # one opens a product, as one opens a file
    from platform_assets.product.channels import Channel as Channel
    from platform_assets.product.channels import Landed as Landed
    from platform_assets.product.data_files import data_file as data_file
    from platform_assets.product.derived import ABOUT as ABOUT
    from platform_assets.product.derived import asked as asked
    from platform_assets.product.fields import Field as Field
    from platform_assets.product.host_assets import HostAsset as HostAsset
    from platform_assets.product.learner import Learner as Learner
    from platform_assets.product.modelling import Gates as Gates
    from platform_assets.product.modelling import Service as Service
    from platform_assets.product.modelling import Training as Training
    from platform_assets.product.monitoring import CrossRule as CrossRule
    from platform_assets.product.monitoring import Monitors as Monitors
    from platform_assets.product.monitoring import Retraining as Retraining
    from platform_assets.product.pods import Pods as Pods
    from platform_assets.product.recording import Deliver as Deliver
    from platform_assets.product.recording import FaultKind as FaultKind
    from platform_assets.product.recording import History as History
    from platform_assets.product.recording import RecordingMissing as RecordingMissing
    from platform_assets.product.sources import Source as Source
    from platform_assets.product.spec import Product as Product
    from platform_assets.product.tasks.binary import Binary as Binary
    from platform_assets.product.tasks.multi_class import MultiClass as MultiClass
    from platform_assets.product.tasks.regression import Regression as Regression
    from platform_assets.product.tuning import Choice as Choice
    from platform_assets.product.tuning import Range as Range
    from platform_assets.product.windows import FeatureTables as FeatureTables
    from platform_assets.product.windows import Tables as Tables
    from platform_assets.product.windows import Window as Window
    from platform_assets.serving.answer.model import Model as Model
    from platform_assets.store.landing import LandedFiles as LandedFiles
    from platform_assets.store.product_store import ProductStore as ProductStore
    from platform_assets.training.image_nets import ConvNet as ConvNet
    from platform_assets.training.learners.blend import Blend as Blend
    from platform_assets.training.learners.boosted import LightGbm as LightGbm
    from platform_assets.training.learners.estimator import Estimator as Estimator
    from platform_assets.training.learners.finished import FinishedOnnx as FinishedOnnx
    from platform_assets.training.learners.network import Network as Network
    from platform_assets.training.nets import TabularNet as TabularNet

NAMES = {
    "ABOUT": "platform_assets.product.derived:ABOUT",
    "BatchGrain": "platform_assets.base.keys:BatchGrain",
    "Binary": "platform_assets.product.tasks.binary:Binary",
    "Blend": "platform_assets.training.learners.blend:Blend",
    "Channel": "platform_assets.product.channels:Channel",
    "Choice": "platform_assets.product.tuning:Choice",
    "ConvNet": "platform_assets.training.image_nets:ConvNet",
    "CrossRule": "platform_assets.product.monitoring:CrossRule",
    "DailyGrain": "platform_assets.base.keys:DailyGrain",
    "DealtFile": "platform_assets.data.channels.dealt_file:DealtFile",
    "Deliver": "platform_assets.product.recording:Deliver",
    "Estimator": "platform_assets.training.learners.estimator:Estimator",
    "FaultKind": "platform_assets.product.recording:FaultKind",
    "FeatureTables": "platform_assets.product.windows:FeatureTables",
    "Field": "platform_assets.product.fields:Field",
    "FinishedOnnx": "platform_assets.training.learners.finished:FinishedOnnx",
    "Gates": "platform_assets.product.modelling:Gates",
    "History": "platform_assets.product.recording:History",
    "HostAsset": "platform_assets.product.host_assets:HostAsset",
    "HourlyGrain": "platform_assets.base.keys:HourlyGrain",
    "Landed": "platform_assets.product.channels:Landed",
    "LandedFiles": "platform_assets.store.landing:LandedFiles",
    "Learner": "platform_assets.product.learner:Learner",
    "LightGbm": "platform_assets.training.learners.boosted:LightGbm",
    "MOMENT_FORMAT": "platform_assets.data.validation:MOMENT_FORMAT",
    "Model": "platform_assets.serving.answer.model:Model",
    "Monitors": "platform_assets.product.monitoring:Monitors",
    "MultiClass": "platform_assets.product.tasks.multi_class:MultiClass",
    "Network": "platform_assets.training.learners.network:Network",
    "ObjectPrefix": "platform_assets.data.channels.object_prefix:ObjectPrefix",
    "OneFile": "platform_assets.data.channels.one_file:OneFile",
    "Pods": "platform_assets.product.pods:Pods",
    "Product": "platform_assets.product.spec:Product",
    "ProductComponent": "platform_assets.components:ProductComponent",
    "ProductStore": "platform_assets.store.product_store:ProductStore",
    "Range": "platform_assets.product.tuning:Range",
    "RecordingMissing": "platform_assets.product.recording:RecordingMissing",
    "Regression": "platform_assets.product.tasks.regression:Regression",
    "Retraining": "platform_assets.product.monitoring:Retraining",
    "Service": "platform_assets.product.modelling:Service",
    "Settings": "platform_assets.base.settings:Settings",
    "Source": "platform_assets.product.sources:Source",
    "SqlWindow": "platform_assets.data.channels.sql_window:SqlWindow",
    "Store": "platform_assets.engine.store_resource:StoreResource",
    "Tables": "platform_assets.product.windows:Tables",
    "TabularNet": "platform_assets.training.nets:TabularNet",
    "Timeline": "platform_assets.data.feature_blocks:Timeline",
    "Training": "platform_assets.product.modelling:Training",
    "UNPARTITIONED": "platform_assets.base.naming:UNPARTITIONED",
    "UnreadableFile": "platform_assets.data.landed:UnreadableFile",
    "Window": "platform_assets.product.windows:Window",
    "asked": "platform_assets.product.derived:asked",
    "build_defs": "platform_assets.automation.factory:build_defs",
    "cycle": "platform_assets.data.feature_blocks:cycle",
    "data_file": "platform_assets.product.data_files:data_file",
    "for_each_key": "platform_assets.automation.conditions:for_each_key",
    "if_known": "platform_assets.data.feature_blocks:if_known",
    "images": "platform_assets.data.images:",
    "load_product": "platform_assets.engine.product_files:load",
    "minute_of_day": "platform_assets.data.feature_blocks:minute_of_day",
    "minutes_between": "platform_assets.data.feature_blocks:minutes_between",
    "null_together": "platform_assets.data.validation:null_together",
    "open": "platform_assets.notebook:open_product",
    "open_spans": "platform_assets.data.feature_blocks:open_spans",
    "read_csv": "platform_assets.data.delimited:read_csv",
    "replay": "platform_assets.demo.replay:",
    "rule": "platform_assets.data.validation:rule",
    "snake_case": "platform_assets.base.naming:snake_case",
}
"""Public name -> module and name in it; no name where the module itself is public."""


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in NAMES:
        # Python adds "Did you mean"; of `from driftline import NAME` it replaces this error by its own.
        raise AttributeError(f"driftline has no {name!r}; it has {', '.join(NAMES)}.")
    module, _, inside = NAMES[name].partition(":")
    loaded = import_module(module)
    # Python calls `__getattr__` only for names that the module lacks, so each name comes here once.
    value = globals()[name] = getattr(loaded, inside) if inside else loaded
    if name == "Product":  # its defaults name a learner and a reader, which lie above the room of products
        from platform_assets.product import defaults

        # Handed over: if `defaults` imported driftline, 116 modules would import each other in a circle.
        defaults.public = partial(getattr, import_module(__name__))
    return value


def __dir__() -> list[str]:
    """Return the public names, but those that need torch: `dg` loads every name in its search for components."""
    return sorted(NAMES.keys() - {"ConvNet", "TabularNet"})
