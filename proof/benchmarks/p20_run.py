"""Serve metrics of so many products until killed, reading everything at every scrape: a process of row P20."""

import sys
from dataclasses import replace
from pathlib import Path

from prometheus_client import start_http_server

from platform_assets.base.settings import Settings
from platform_assets.operations import exporter
from platform_assets.operations.exporter import parts
from tests.doubles import recorded


def named(count: int) -> list[str]:
    return [f"shop_{number}" for number in range(count)]


if __name__ == "__main__":
    exporter.PRODUCTS_EVERY_S, parts.PATIENCE_S = 0.0, 600.0
    home, port, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    products = [replace(recorded.SPEC, name=name) for name in named(count)]
    registry = exporter.metrics(Settings.from_environment(), products, home)
    start_http_server(port, "127.0.0.1", registry)[1].join()
