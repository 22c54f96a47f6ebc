"""Which attempts were made while the machine was not as it should be (pure functions).

Per rig (a machine, or one GPU of it), and only for what was timed under the conditions of now. The
rules in words: docs/campaign-rules.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.campaign.calibration import baseline, drifted, is_good, rig_state, runtime_ratio
from harness.campaign.events import Suspected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.campaign.policy import Policy
    from harness.campaign.rules import Published
    from harness.campaign.state import Attempt, CampaignState

_UNEQUAL = 0.1  # as much as a machine may drift, by default


def new_suspicions(state: CampaignState, policy: Policy) -> tuple[Suspected, ...]:
    """To be journalled; each attempt is suspected once."""
    if policy.calibration.source is None:
        return ()
    found: list[Suspected] = []
    for rig in state.rigs():
        key = ("drift", rig)
        now = (policy.calibration, state.conditions, state.rig_changes(rig))
        if state.memo.get(key) == now:
            continue
        suspicions = tuple(_on_rig(state, policy, rig))
        if not suspicions:
            state.memo[key] = now
        found += suspicions
    return tuple(found)


def _on_rig(state: CampaignState, policy: Policy, rig: str) -> Iterator[Suspected]:
    """An attempt counts as made on a quiet rig when the calibrations before and after it are within
    the threshold, with none between that is beyond it."""
    open_attempts: list[Attempt] = []  # timed, and no calibration has ended well since
    beyond: str | None = None  # how far the last calibration was
    digest: str | None = None
    for attempt in state.on_rig(rig):
        if not state.is_current(attempt) or not attempt.is_timed:
            continue
        if attempt.machine_digest != digest:
            yield from _suspect(open_attempts, "the machine changed before it was calibrated again")
            open_attempts, beyond, digest = [], None, attempt.machine_digest
        if not is_good(attempt):
            if not attempt.is_calibration:
                open_attempts.append(attempt)
        elif (beyond := drifted(state, policy, attempt)) is None:
            open_attempts = []
        if beyond is not None:
            yield from _suspect(open_attempts, beyond)
    if open_attempts:
        last = state.on_rig(rig)[-1].started.place
        if (unusable := rig_state(state, policy, last).unusable) is not None:
            yield from _suspect(open_attempts, f"no calibration after it: {unusable}")


def _suspect(attempts: list[Attempt], reason: str) -> Iterator[Suspected]:
    """Those that are not suspected yet; ``attempts`` is emptied, so that none is told twice."""
    for attempt in attempts:
        if attempt.suspicion is None:
            yield Suspected(team=attempt.started.team, run_id=attempt.started.run_id, reason=reason)
    attempts.clear()


def machines(state: CampaignState, results: Mapping[str, Published]) -> tuple[str, ...]:
    """Warnings, when the published runtimes are of machines that may not be equally fast: by their
    fingerprints, or by what the reference image took on each."""
    return (*_of_several_kinds(results), *_unequal_rigs(state, results))


def _timed(results: Mapping[str, Published]) -> Iterator[tuple[str, Attempt]]:
    for team, one in sorted(results.items()):
        if one.final and one.result is not None and one.result.is_timed:
            yield team, one.result


def _of_several_kinds(results: Mapping[str, Published]) -> Iterator[str]:
    kinds: dict[str | None, tuple[set[str], list[str]]] = {}
    for team, attempt in _timed(results):
        names, teams = kinds.setdefault(attempt.machine_digest, (set(), []))
        names.add(attempt.started.place.machine)
        teams.append(team)
    if len(kinds) > 1:
        told = "; ".join(
            f"{', '.join(sorted(names))} ({_short(digest)}): {', '.join(teams)}"
            for digest, (names, teams) in kinds.items()
        )
        yield (
            f"runtimes of {len(kinds)} kinds of machines, which must not be compared with each "
            f"other: {told}"
        )


def _unequal_rigs(state: CampaignState, results: Mapping[str, Published]) -> Iterator[str]:
    """Of one fingerprint: rigs whose baselines are farther apart than drift may be."""
    baselines: dict[str | None, dict[str, Attempt]] = {}
    for _, attempt in _timed(results):
        rig, digest = attempt.started.place.rig, attempt.machine_digest
        if (first := baseline(state, rig, digest)) is not None:
            baselines.setdefault(digest, {})[rig] = first
    for by_rig in baselines.values():
        (name, first), *others = by_rig.items()
        for other, compared in others:
            ratio = runtime_ratio(first, compared)
            if ratio is not None and abs(ratio - 1) > _UNEQUAL:
                yield (
                    f"{other} took {ratio:.2f} times as long as {name} for the reference image, "
                    "although their fingerprints are the same"
                )


def _short(digest: str | None) -> str:
    return "no fingerprint" if digest is None else digest.removeprefix("sha256:")[:12]
