"""Types that msgspec knows are safe in threads; see `platform_assets/base/structs.py` for what happens otherwise."""

import subprocess
import sys

import msgspec
import pytest

from platform_assets.base import structs
from platform_assets.base.settings import REPOSITORY

pytestmark = pytest.mark.slow

RACE = """
import sys, threading, types
import msgspec
from platform_assets.base import structs

SOURCE = "import msgspec\\n" + "".join(
    f"class C{level}(msgspec.Struct):\\n"
    + "".join(f"    f{at}: {f'C{level - 1}' if level and not at else 'int'}\\n" for at in range(8))
    for level in range(6)
)
document = {f"f{at}": 1 for at in range(8)}
for _ in range(5):
    document = {**{f"f{at}": 1 for at in range(8)}, "f0": document}
sys.setswitchinterval(1e-6)
for number in range(100):
    module = types.ModuleType(f"raced{number}")
    sys.modules[module.__name__] = module
    exec(SOURCE, module.__dict__)
    assert structs.prepare(module.__name__) == 6
    barrier = threading.Barrier(6)

    def work():
        barrier.wait()
        msgspec.convert(document, module.C5)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("survived")
"""


def test_threads_that_share_a_type_for_the_first_time_survive() -> None:
    """Without `prepare` this process ended with SIGSEGV in each of three attempts, with msgspec 0.22."""
    done = subprocess.run([sys.executable, "-c", RACE], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "survived"), done.stderr


WATCHED = """
from platform_assets.base import structs

prepare, counts = structs.prepare, []
structs.prepare = lambda *packages: counts.append(prepare(*packages))
import platform_assets.definitions
print(*counts)
"""


@pytest.mark.costly
def test_the_code_location_prepares_all_types_that_it_has_loaded() -> None:
    """A type that cannot be worked out would end the import of the definitions."""
    done = subprocess.run([sys.executable, "-c", WATCHED], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100


def test_only_types_of_the_packages_are_prepared() -> None:
    class Ours(msgspec.Struct):
        a: int

    assert Ours.__module__ == __name__
    assert structs.prepare(__name__.partition(".")[0]) >= 1
    assert structs.prepare("nobody") == 0
