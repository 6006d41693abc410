"""Runs the demo API: `DEMO_API_TOKEN=... python -m include.local.demo_api --port 8080`."""

from __future__ import annotations

import argparse
import os
import sys

from include.local.demo_api.app import MAX_LIMIT, Settings
from include.local.demo_api.server import LOOPBACK, build_server, listen


def main() -> None:
    """Serves until SIGINT or SIGTERM. The first line on standard output is the base URL, once the port listens."""
    parser = argparse.ArgumentParser(prog="python -m include.local.demo_api", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="the address to listen on; in a container 0.0.0.0")
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--token", help="better: DEMO_API_TOKEN, which no list of processes shows")
    for entity in ("customers", "products", "orders"):
        parser.add_argument(f"--{entity}", type=int, default=getattr(Settings, entity), help="how many")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--dirty", type=float, default=Settings.dirty, help="share of dirty records, 0 to 0.5")
    parser.add_argument("--page-size", type=int, default=Settings.page_size, help="records a page without limit=")
    parser.add_argument(
        "--largest-page", type=int, default=Settings.largest_page, help="records a page, whatever limit= asks for"
    )
    parser.add_argument(
        "--clock",
        choices=("real", "frozen", "wall"),
        default=Settings.clock,
        help="runs on from the demo's epoch (real), stands still there (frozen), or is the machine's (wall)",
    )
    arguments = vars(parser.parse_args())
    host, port = arguments.pop("host"), arguments.pop("port")
    arguments["token"] = arguments["token"] or os.environ.get("DEMO_API_TOKEN")
    if not arguments["token"]:
        parser.error("a token is needed: set DEMO_API_TOKEN")
    if min(arguments[entity] for entity in ("customers", "products", "orders")) < 0:
        parser.error("--customers, --products and --orders cannot be negative")
    if not 0 <= arguments["dirty"] <= 0.5:
        parser.error("--dirty must be from 0 to 0.5")
    for option in ("page_size", "largest_page"):
        if not 1 <= arguments[option] <= MAX_LIMIT:
            parser.error(f"--{option.replace('_', '-')} must be from 1 to {MAX_LIMIT}")

    server = build_server(Settings(**arguments))
    with listen(port, host) as listening:
        sys.stdout.write(f"http://{host}:{listening.getsockname()[1]}\n")
        sys.stdout.flush()
        server.run(sockets=[listening])


if __name__ == "__main__":
    main()
