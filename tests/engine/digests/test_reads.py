# ruff: noqa: E501, ISC004 - texts of products
"""A product's code reads no file but data files: each way is refused by name, and nothing else is touched."""

import importlib
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

from platform_assets.engine.digests import definitions, modules, reads

pytestmark = pytest.mark.slow

SETUP = """
import functools, json, os, sys
from pathlib import Path
from platform_assets.product.spec import data_file
FOLDER = {folder!r}
"""


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Write files of every kind next to a product's file, and return what imports a file with this text."""
    (tmp_path / "lead.txt").write_text("30", encoding="utf-8")
    (tmp_path / "lead.csv").write_text("a\n1\n", encoding="utf-8")
    (tmp_path / "lead.json").write_text('[{"a": 1}]', encoding="utf-8")
    frame = pl.DataFrame({"a": [1]})
    frame.write_parquet(tmp_path / "lead.parquet")
    frame.write_ipc(tmp_path / "lead.arrow")
    frame.write_avro(tmp_path / "lead.avro")
    frame.lazy().serialize(tmp_path / "lead.plan")
    frame.write_delta(str(tmp_path / "lead"))
    np.save(tmp_path / "lead.npy", np.ones(1))
    with sqlite3.connect(tmp_path / "lead.db") as connection:
        connection.execute("create table t (a)")
    connection.close()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text: str) -> ModuleType:
        (tmp_path / "a_product.py").write_text(SETUP.format(folder=str(tmp_path)) + text, encoding="utf-8")
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "a_product", raising=False)
        # Another test's file may have had this name; a process of the product's has one file per name.
        for cached in (modules.path_of, modules._read, modules.closure, definitions.closure, definitions._definition):
            cached.cache_clear()
        with reads.guarded("a_product"):
            return importlib.import_module("a_product")

    yield write
    sys.modules.pop("a_product", None)


READS = {
    "open": "open(FOLDER + '/lead.txt').read()",
    "open for update": "open(FOLDER + '/lead.txt', 'r+').read()",
    "Path": "(Path(__file__).with_name('lead.txt')).read_text()",
    "os.open": "os.open(FOLDER + '/lead.txt', os.O_RDONLY)",
    "relative": "(os.chdir(FOLDER), open('lead.txt').read())",
    "through /proc": "(os.chdir(FOLDER), open('/proc/self/cwd/lead.txt').read())",
    "linecache": "__import__('linecache').getlines(FOLDER + '/lead.txt')",
    "get_data": "__import__('pkgutil').get_data('a_product', 'lead.txt')",
    "listdir": "os.listdir(FOLDER)",
    "glob": "list(Path(FOLDER).glob('*'))",
    "read_csv": "__import__('polars').read_csv(FOLDER + '/lead.csv')",
    "read_csv of a path": "__import__('polars').read_csv(source=Path(FOLDER) / 'lead.csv')",
    "read_csv of an address": "__import__('polars').read_csv('https://localhost/lead.csv')",
    "scan_csv": "__import__('polars').scan_csv(FOLDER + '/*.csv').collect()",
    "scan_parquet": "__import__('polars').scan_parquet([FOLDER + '/lead.parquet']).collect()",
    "read_parquet": "__import__('polars').read_parquet(FOLDER)",
    "read_parquet_schema": "__import__('polars').read_parquet_schema(FOLDER + '/lead.parquet')",
    "read_ipc": "__import__('polars').read_ipc(FOLDER + '/lead.arrow')",
    "read_avro": "__import__('polars').read_avro(FOLDER + '/lead.avro')",
    "read_json": "__import__('polars').read_json(FOLDER + '/lead.json')",
    "deserialize": "__import__('polars').LazyFrame.deserialize(FOLDER + '/lead.plan').collect()",
    "SQL": "__import__('polars').sql(f\"select * from read_csv('{FOLDER}/lead.csv')\").collect()",
    "read_delta": "__import__('polars').read_delta(FOLDER + '/lead')",
    "scan_delta": "__import__('polars').scan_delta(FOLDER + '/lead').collect()",
    "DeltaTable": "__import__('deltalake').DeltaTable(FOLDER + '/lead')",
    "sqlite3": "__import__('sqlite3').connect(FOLDER + '/lead.db')",
    "sqlite3 by address": "__import__('sqlite3').connect('file:' + FOLDER + '/lead.db?mode=ro', uri=True)",
    "mmap": "__import__('mmap').mmap(os.open(FOLDER + '/lead.txt', os.O_RDWR), 0)[:]",
    "numpy.load": "__import__('numpy').load(FOLDER + '/lead.npy')",
    "numpy.fromfile": "__import__('numpy').fromfile(FOLDER + '/lead.npy', 'u1')",
    "numpy.memmap": "__import__('numpy').memmap(FOLDER + '/lead.npy')",
    "pandas": "__import__('pandas').read_csv(FOLDER + '/lead.csv')",
    "onnxruntime": "__import__('onnxruntime').InferenceSession(FOLDER + '/lead.txt')",
    "safetensors": "__import__('safetensors').safe_open(FOLDER + '/lead.txt', 'numpy')",
    "another program": "__import__('subprocess').check_output(['cat', FOLDER + '/lead.txt'])",
    "a shell": "os.system('cat ' + FOLDER + '/lead.txt')",
    "another distribution's file": "Path(__import__('polars').__file__).read_text()",
    "a link": "(os.symlink(FOLDER + '/lead.txt', FOLDER + '/link'), open(FOLDER + '/link').read())",
    "a copy": "__import__('shutil').copy(FOLDER + '/lead.txt', FOLDER + '/copy.txt')",
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_read_in_a_function_is_refused_by_name(
    read: str, product: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    module = product(f"def features():\n    return {read}\n")
    with pytest.raises(reads.UndigestedRead, match=r"features\(\).*data_file") as caught, reads.guarded("a_product"):
        module.features()
    assert "line 7 of a_product" in str(caught.value)


@pytest.mark.parametrize("name", ["open", "Path", "read_csv", "scan_parquet", "read_delta", "sqlite3", "numpy.load"])
def test_a_read_while_the_file_is_imported_is_refused(name: str, product: Callable[[str], ModuleType]) -> None:
    with pytest.raises(reads.UndigestedRead, match="while it is imported"):
        product(f"LEAD = {READS[name]}\n")


@pytest.mark.parametrize("name", ["open", "mmap", "read_csv", "read_delta", "numpy.load"])
def test_a_cached_read_at_the_first_call_is_refused(
    name: str, product: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = product(f"@functools.cache\ndef lead():\n    return {READS[name]}\n\ndef features():\n    return lead()\n")
    for _ in range(2):
        with (
            pytest.raises(reads.UndigestedRead, match=r"lead\(\), called by features\(\)"),
            reads.guarded("a_product"),
        ):
            module.features()


@pytest.mark.parametrize(
    "text",
    [
        "def features():\n    try:\n        return open(FOLDER + '/lead.txt').read()\n    except Exception:\n        return 30\n",
        "from polars import read_csv\n\ndef features():\n    return read_csv(FOLDER + '/lead.csv')\n",
        "import polars as pl\n\ndef lead(x):\n    return open(FOLDER + '/lead.txt').read()\n\ndef features():\n"
        "    column = pl.col('a').map_elements(lead, pl.String)\n"
        "    return pl.DataFrame({'a': range(9)}).lazy().select(column, b=column, c=column).collect()\n",
        "from concurrent.futures import ThreadPoolExecutor\n\ndef features():\n    with ThreadPoolExecutor() as pool:\n"
        "        return [*pool.map(lambda path: path.read_text(), [Path(FOLDER) / 'lead.txt'])]\n",
        "import threading\n\ndef features():\n    texts = []\n    thread = threading.Thread(target=lambda: "
        "texts.append(open(FOLDER + '/lead.txt').read()), daemon=True)\n"
        "    thread.start(), thread.join()\n    return texts\n",
    ],
    ids=["caught", "a bound name", "an expression of polars", "a pool", "a thread"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_read_that_takes_another_way_is_refused(text: str, product: Callable[[str], ModuleType]) -> None:
    module = product(text)
    with pytest.raises(reads.UndigestedRead, match="data_file"), reads.guarded("a_product"):
        module.features()


def test_a_data_file_of_another_function_is_refused_unless_it_is_read_by_data_file(
    product: Callable[[str], ModuleType],
) -> None:
    module = product(
        "def features():\n    return data_file('lead.txt').read_text()\n\n"
        "def label():\n    return open(FOLDER + '/lead.txt').read()\n"
    )
    with reads.guarded("a_product", module.features):
        text = module.features()
    with pytest.raises(reads.UndigestedRead, match=r"label\(\).*data_file"), reads.guarded("a_product", module.label):
        module.label()
    assert text


@pytest.mark.costly
def test_a_reader_that_a_helper_bound_before_is_refused_too(
    product: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = ModuleType("a_helper")
    helper.__file__ = str(tmp_path / "a_helper.py")
    original = pl.read_csv
    while hasattr(original, "__wrapped__") and original.__module__ == pl.read_csv.__module__:
        original = original.__wrapped__
        break
    helper.__dict__["read_csv"] = original
    monkeypatch.setitem(sys.modules, "a_helper", helper)
    monkeypatch.setattr(pl, "read_csv", original)
    monkeypatch.setattr(reads, "_WRAPPED", {name: item for name, item in reads._WRAPPED.items() if name != "polars"})
    module = product("def features():\n    import a_helper\n    return a_helper.read_csv(FOLDER + '/lead.csv')\n")
    with pytest.raises(reads.UndigestedRead, match=r"features\(\)"), reads.guarded("a_product"):
        module.features()


PASSES = {
    "data_file": "data_file('lead.txt').read_text()",
    "data_file of polars": "__import__('polars').read_csv(data_file('lead.csv'))",
    "data_file of sqlite3": "__import__('sqlite3').connect(data_file('lead.db')).close()",
    "data_file of mmap": "__import__('numpy').load(data_file('lead.npy'), mmap_mode='r')[0]",
    "bytes": "__import__('polars').read_csv(b'a\\n1\\n')",
    "bytes in memory": "__import__('polars').read_json(__import__('io').BytesIO(b'[{\"a\": 1}]'))",
    "SQL of frames": "__import__('polars').SQLContext(t=__import__('polars').DataFrame({'a': [1]})).execute('select a from t')",
    "a database in memory": "__import__('sqlite3').connect(':memory:').close()",
    "zones": "__import__('zoneinfo').ZoneInfo.no_cache('Europe/Oslo')",
    "zones of the package": "(__import__('zoneinfo').reset_tzpath(to=[]), __import__('zoneinfo').ZoneInfo.no_cache('Asia/Tokyo'),"
    " __import__('zoneinfo').reset_tzpath())",
    "an import": "__import__('importlib').import_module('xml.dom.pulldom')",
    "an import that reads": "__import__('matplotlib.pyplot')",
    "versions": "__import__('importlib.metadata').metadata.version('polars')",
    "a device": "open('/dev/urandom', 'rb').read(1)",
    "the processors": "open('/proc/cpuinfo').read()",
    "a temporary file": "(open(FOLDER + '/new', 'w').write('1'), open(FOLDER + '/new').read())",
    "a temporary folder": "(os.mkdir(FOLDER + '/made'), open(FOLDER + '/made/new', 'w').close(), os.listdir(FOLDER + '/made'))",
    "a distribution's own file": "__import__('matplotlib.font_manager').font_manager.FontProperties(fname=None).get_name()",
    "a warning": "__import__('warnings').warn('w')",
    "a model of torch": "__import__('torch').nn.Linear(1, 1)",
}


@pytest.mark.parametrize("read", PASSES.values(), ids=PASSES)
def test_what_is_not_a_product_s_read_passes(read: str, product: Callable[[str], ModuleType]) -> None:
    module = product(f"def features():\n    return {read}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with reads.guarded("a_product"):
            module.features()


def test_other_threads_and_later_calls_read_freely(product: Callable[[str], ModuleType], tmp_path: Path) -> None:
    read: list[Any] = []
    module = product(
        f"def features(meanwhile):\n    meanwhile()\n\ndef fetch():\n    return {READS['read_csv']}, {READS['Path']}\n"
    )

    def meanwhile() -> None:
        worker.start()
        worker.join()

    worker = threading.Thread(target=lambda: read.append(module.fetch()))
    starter = threading.Event()
    other = threading.Thread(target=lambda: (starter.wait(), read.append(module.fetch())))
    other.start()
    with reads.guarded("a_product"):
        starter.set()
        other.join()
    read.append(module.fetch())
    assert [text for _, text in read] == ["30", "30"]


def test_the_platforms_own_reads_pass_meanwhile(product: Callable[[str], ModuleType], tmp_path: Path) -> None:
    from platform_assets.store import objects

    module = product("def features(read):\n    return read()\n")
    with reads.guarded("a_product"):
        assert objects.read(objects.open_store(str(tmp_path)), "lead.txt") == b"30"
        assert module.features(lambda: objects.is_there(str(tmp_path)))


@pytest.mark.costly
def test_importing_the_package_hears_nothing() -> None:
    code = (
        "import sys; hooks = []; add = sys.addaudithook; sys.addaudithook = hooks.append\n"
        "ours = lambda: [hook for hook in hooks if hook.__module__.startswith('platform_assets')]\n"
        "import polars; before = polars.read_csv\n"
        "import platform_assets.engine.product_files, platform_assets.components, platform_assets.engine.digests.reads\n"
        "assert not ours() and polars.read_csv is before\n"
        "platform_assets.engine.product_files.load('flight_delays'); assert len(ours()) == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
