"""The script deploy/store/keys.py as a module."""

from importlib import util

from platform_assets.base.settings import REPOSITORY

_spec = util.spec_from_file_location("keys", REPOSITORY / "deploy" / "store" / "keys.py")
assert _spec is not None
assert _spec.loader is not None
_module = util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
main, policies, read, write = _module.main, _module.policies, _module.read, _module.write
