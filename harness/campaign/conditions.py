"""All that must be equal for two results to be comparable, but for the machine."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from harness.cache import CacheMode
from harness.campaign.upload import Sha256
from harness.challenge.contract import Limits
from harness.engine.base import EngineName, Isolation


class Conditions(BaseModel):
    """``challenge_digest`` is of the whole challenge, its ``limits`` included; these are here for
    :meth:`differences` to name them. ``data_digest``: of the lists of pairs and every input.
    ``gpus``: whether a run gets a GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    harness_version: str
    challenge: str
    challenge_digest: Sha256
    limits: Limits
    data_digest: Sha256
    engine: EngineName
    cache: CacheMode = CacheMode.WARM
    isolation: Isolation = Isolation()
    gpus: bool = False

    def differences(self, before: Conditions) -> tuple[str, ...]:
        """What is not as it was, one line each, fit to follow "run again: "."""
        told = [
            f"{name}: {was} before, {now} now"
            for name, was, now in (
                ("harness version", before.harness_version, self.harness_version),
                ("challenge", before.challenge, self.challenge),
                ("engine", before.engine, self.engine),
                ("page cache", before.cache, self.cache),
                ("read-only root", before.isolation.read_only_root, self.isolation.read_only_root),
                ("runtime", before.isolation.runtime, self.isolation.runtime),
                ("GPU", before.gpus, self.gpus),
            )
            if was != now
        ]
        told += self._changed_limits(before)
        if not any(text.startswith(("limit", "challenge")) for text in told):
            told += _changed("challenge's content", before.challenge_digest, self.challenge_digest)
        return (*told, *_changed("data", before.data_digest, self.data_digest))

    def _changed_limits(self, before: Conditions) -> list[str]:
        ours, theirs = (one.limits.model_dump(by_alias=True) for one in (self, before))
        return [
            f"limit {name}: {theirs[name]} before, {ours[name]} now"
            for name in ours
            if ours[name] != theirs[name]
        ]


def _changed(what: str, before: str, now: str) -> list[str]:
    return [f"{what}: {_short(before)} before, {_short(now)} now"] if before != now else []


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
