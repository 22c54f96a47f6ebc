"""Which attempts were made while the machine was not as it should be (pure functions).

Per rig (a machine, or one GPU of it), and only for what was timed under the conditions of now. The
rules in words: docs/campaign-rules.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.campaign.calibration import baseline, drifted, is_good, rig_state, runtime_ratio
from harness.campaign.events import Suspected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from harness.campaign.conditions import Conditions
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
        now = (policy, state.conditions, state.rig_changes(rig))
        if state.memo.get(key) != now:
            suspicions = _on_rig(state, policy, rig)
            if not suspicions:
                state.memo[key] = now
            found += suspicions
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class _Settled:
    """Nothing before the calibration at ``index`` of its rig can become suspect any more, as long
    as it is measured by ``baseline``."""

    policy: Policy
    conditions: Conditions | None
    index: int
    baseline: Attempt | None


def _on_rig(state: CampaignState, policy: Policy, rig: str) -> list[Suspected]:
    """An attempt counts as made on a quiet rig when the calibrations before and after it are within
    the threshold, with none between that is beyond it."""
    found: list[Suspected] = []
    open_attempts: list[Attempt] = []  # timed, and no calibration has ended well since
    beyond: str | None = None  # how far the last calibration was
    digest: str | None = None
    settled = start = _start(state, policy, rig)
    all_ended = True
    attempts = state.on_rig(rig)
    for index in range(settled, len(attempts)):
        attempt = attempts[index]
        all_ended = all_ended and attempt.end is not None
        if not state.is_current(attempt) or not attempt.is_timed:
            continue
        if attempt.machine_digest != digest:
            found += _suspect(open_attempts, "the machine changed before it was calibrated again")
            beyond, digest = None, attempt.machine_digest
        if not is_good(attempt):
            if not attempt.is_calibration:
                open_attempts.append(attempt)
        elif (beyond := drifted(state, policy, attempt)) is None:
            open_attempts.clear()
            settled = index if all_ended else settled
        if beyond is not None:
            found += _suspect(open_attempts, beyond)
    if open_attempts:
        unusable = rig_state(state, policy, attempts[-1].started.place).unusable
        if unusable is not None:
            found += _suspect(open_attempts, f"no calibration after it: {unusable}")
    if not found and settled > start:
        _keep(state, policy, rig, settled)
    return found


def _start(state: CampaignState, policy: Policy, rig: str) -> int:
    match state.memo.get(("settled", rig)):
        case _Settled() as kept if kept.policy == policy and kept.conditions is state.conditions:
            calibration = state.on_rig(rig)[kept.index]
            if baseline(state, rig, calibration.machine_digest) is kept.baseline:
                return kept.index
    return 0


def _keep(state: CampaignState, policy: Policy, rig: str, index: int) -> None:
    state.memo["settled", rig] = _Settled(
        policy=policy,
        conditions=state.conditions,
        index=index,
        baseline=baseline(state, rig, state.on_rig(rig)[index].machine_digest),
    )


def _suspect(attempts: list[Attempt], reason: str) -> list[Suspected]:
    """Those that are not suspected yet; ``attempts`` is emptied, so that none is told twice."""
    found = [
        Suspected(team=attempt.started.team, run_id=attempt.started.run_id, reason=reason)
        for attempt in attempts
        if attempt.suspicion is None
    ]
    attempts.clear()
    return found


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
    seen: set[tuple[str, str | None]] = set()
    for _, attempt in _timed(results):
        rig, digest = attempt.started.place.rig, attempt.machine_digest
        if (rig, digest) not in seen:
            seen.add((rig, digest))
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
