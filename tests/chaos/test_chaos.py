"""The promise of the syncs, over random schedules: `make chaos` plays thousands more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import SystemRandom

import pytest

from tests.chaos.proof import BEYOND, OURS, Prover

pytestmark = pytest.mark.database

SCHEDULES = 150
OVER_HTTP = 30
SOME_BEYOND = 16


@pytest.fixture(scope="module")
def prover() -> Iterator[Prover]:
    logging.disable(logging.ERROR)  # sources fail here by the hundred, as they are told
    with Prover.running() as running:
        yield running
    logging.disable(logging.NOTSET)


def test_a_sync_ends_with_what_the_source_holds_and_simpler_rules_do_not(prover: Prover) -> None:
    seed = SystemRandom().randrange(10**9)
    print(f"{SCHEDULES} schedules from seed {seed}")
    proof = prover.prove(range(seed, seed + SCHEDULES), http=OVER_HTTP)
    print(proof.table())
    ours = proof.tallies[OURS]
    assert (ours.schedules, proof.over_http) == (SCHEDULES, OVER_HTTP)
    assert (ours.lost, ours.wrong, ours.left_over, ours.doubled) == (0, 0, 0, 0)
    assert ours.executions > 4 * SCHEDULES
    assert ours.live > SCHEDULES
    for rule in ("own clock", "newest seen"):
        assert proof.tallies[rule].losing_schedules > 0, rule


def test_what_a_delta_loses_because_commits_show_too_late_the_daily_run_mends(prover: Prover) -> None:
    repaired = prover.repaired(range(SOME_BEYOND), BEYOND["commits show up to 2 hours late"])
    after_delta, after_another, after_daily, after_trusting = repaired.missing
    assert after_delta == after_another > 0
    assert (after_daily, after_trusting) == (0, 0)


def test_stamps_that_went_backwards_are_counted_and_mended_by_trusting_the_source(prover: Prover) -> None:
    repaired = prover.repaired(range(SOME_BEYOND), BEYOND["stamps lie up to 2 hours back"])
    _, _, after_daily, after_trusting = repaired.missing
    assert repaired.regressed == after_daily > 0
    assert after_trusting == 0
