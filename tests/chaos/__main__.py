"""Plays schedules by the thousand: `python -m tests.chaos --schedules 10000`.

Ends with 1 at the first schedule that breaks a promise, and prints it, cut down, with its seed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

from tests.chaos.proof import BEYOND, OURS, Proof, Prover, repairs_table
from tests.chaos.simulation import BrokenPromiseError

REPORT_SECONDS = 10.0
BEYOND_SHARE = 50
"""One schedule beyond the bounds, of each kind, for so many within them."""


def main() -> int:
    """Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--http", type=int, default=200, help="how many of them go over HTTP (default 200)")
    parser.add_argument("--seed", type=int, help="the first schedule's (default: any); the next ones count on from it")
    parser.add_argument("--report", type=Path, help="a Markdown file to write the tables to")
    wanted = parser.parse_args()
    logging.disable(logging.ERROR)  # sources fail here by the thousand, as they are told
    seed = SystemRandom().randrange(10**9) if wanted.seed is None else wanted.seed
    http = min(wanted.http, wanted.schedules)
    print(f"{wanted.schedules:,} schedules from seed {seed}, {http:,} of them over HTTP", flush=True)
    with Prover.running() as prover:
        try:
            proof = prover.prove(range(seed, seed + wanted.schedules), http=http, progress=_Progress(wanted.schedules))
        except BrokenPromiseError as broken:
            print(broken, file=sys.stderr)
            return 1
        beyond = max(wanted.schedules // BEYOND_SHARE, 1)
        repaired = {name: prover.repaired(range(seed, seed + beyond), source) for name, source in BEYOND.items()}
    report = (
        f"{proof.tallies[OURS].schedules:,} schedules from seed {seed}, {proof.over_http:,} of them over HTTP, "
        f"in {proof.seconds / 60:.0f} minutes on {datetime.now(UTC):%Y-%m-%d}.\n\n{proof.table()}\n\n"
        f"Beyond the bounds, {beyond:,} schedules each:\n\n{repairs_table(repaired)}\n"
    )
    print("\n" + report)
    if wanted.report:
        wanted.report.write_text(report)
    return 0


class _Progress:
    """Prints how far it has come, every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._printed = time.monotonic()

    def __call__(self, proof: Proof) -> None:
        now = time.monotonic()
        if now - self._printed < REPORT_SECONDS:
            return
        self._printed = now
        done = proof.tallies[OURS].schedules
        left = proof.seconds / done * (self._total - done)
        print(
            f"{done:,} of {self._total:,} schedules ({done / self._total:.0%}), "
            f"{proof.tallies[OURS].executions:,} executions, {left / 60:.0f} min left",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
