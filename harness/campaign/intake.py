"""The submissions folder: which uploads are there, complete, and whose; and what is none, and why.

Anybody may have put anything there, under any name. What is wrong with one entry is told of that
entry and stops no other.

An upload arrived when its file's status last changed (ctime). A team can set the time of a file's
content back (mtime), and so hand in today within yesterday's limit; ctime is the kernel's alone. It
also changes when a file is renamed, or its mode is set, which makes an upload later and never
earlier: whoever has written down when an upload was first seen goes by that. The name of an image
arrived when it was first seen.
"""

from __future__ import annotations

import errno
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.campaign.claim import MAX_NAMED, Claim, is_namesake, namesakes_of, rivals_of
from harness.campaign.entry_name import slug
from harness.campaign.events import UploadRejected
from harness.campaign.listing import Candidate, list_entries
from harness.campaign.policy import TeamOverride
from harness.campaign.policy_file import check_tasks
from harness.campaign.settling import Settling, Thing
from harness.campaign.team_file import TeamFile, read_team_file
from harness.campaign.upload import TeamInfo, Upload, UploadKind
from harness.errors import SubmissionError
from harness.text import harmless_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from harness.campaign.content import Contents
    from harness.campaign.policy import Policy
    from harness.challenge.model import Challenge

# What a file gives that was there a moment ago: it is gone, or something else has its name now.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_SHOWN = 200  # characters


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """An upload that is complete. ``notes``: for people, fit to be shown."""

    upload: Upload
    info: TeamInfo
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scan:
    """All that is there now, each time anew. ``uploads`` in the order they arrived; ``rejected``
    and ``waiting`` (entries that are not complete yet, or not read yet) by entry."""

    uploads: tuple[Arrived, ...] = ()
    rejected: tuple[UploadRejected, ...] = ()
    waiting: tuple[str, ...] = ()


class _NotTaken(Exception):
    """One entry is rejected: why."""


class _NotYet(Exception):
    """One entry is not complete, or not read yet."""


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """Of one scan: what it was asked."""

    watching: bool
    now_s: float
    may_read: bool


@dataclass
class _Found:
    uploads: list[Arrived] = field(default_factory=list)
    rejected: list[UploadRejected] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    def reject(self, candidate: Candidate, reason: str, team: str | None = None) -> None:
        arrived_s = candidate.thing.changed_s
        self.rejected.append(
            UploadRejected(entry=candidate.entry, reason=reason, team=team, arrived_s=arrived_s)
        )

    def as_scan(self) -> Scan:
        return Scan(
            uploads=tuple(_once_each(self.uploads)),
            rejected=tuple(sorted(self.rejected, key=lambda one: one.entry)),
            waiting=tuple(sorted(self.waiting)),
        )


class Intake:
    """Scans one submissions folder, time and again.

    ``image_id_of``: the ID of an image of that name here, None when there is none. Raises
    CampaignError when the policy names tasks that the challenge lacks.
    """

    def __init__(
        self,
        submissions_dir: Path,
        policy: Policy,
        contents: Contents,
        challenge: Challenge,
        image_id_of: Callable[[str], str | None],
    ) -> None:
        check_tasks(policy, challenge)
        self._root = Path(os.path.abspath(submissions_dir))  # noqa: PTH100 - as it was named
        self._policy = policy
        self._contents = contents
        self._challenge = challenge
        self._image_id_of = image_id_of
        self._settling = Settling(policy.settle_time_s)
        # Of team files that are settled: name -> stamp, and what it says or why it is not taken.
        self._said: dict[str, tuple[str, TeamFile | str]] = {}
        self._first_seen_s: dict[tuple[str, str], float] = {}  # of (team, image ID)

    def scan(self, *, watching: bool, now_s: float, may_read: bool = True) -> Scan:
        """What is there at ``now_s`` (seconds since 1970 UTC).

        ``watching``: an upload is complete when it has not changed for the policy's settle time, or
        when it was seen before, under a name of those that programs give to files in progress, and
        was renamed. Else all is taken that has not changed in the last second. What was read before
        and has not changed since is complete once its ``ctime`` is so long ago. Without
        ``may_read`` what has not been read before waits: reading it would disturb a run that is
        timed.

        Raises CampaignError when the folder cannot be looked into, and what ``image_id_of`` raises.
        """
        listing = list_entries(self._root, self._policy.image_size_bytes)
        things = {one.name: one for found in listing.candidates for one in found.things}
        self._settling.see(things.values(), listing.in_progress, now_s)
        moment = _Moment(watching=watching, now_s=now_s, may_read=may_read)
        found = _Found()
        claims = self._claims(listing.candidates, moment, found)
        rivals, namesakes = rivals_of(claims), namesakes_of(claims)
        for claim in claims:
            strangers = () if is_namesake(claim) else namesakes.get(claim.team, ())
            self._take(claim, rivals, strangers, moment, found)
        self._take_named_images(moment, found)
        self._contents.save()
        return found.as_scan()

    def _claims(
        self, candidates: Iterable[Candidate], moment: _Moment, found: _Found
    ) -> list[Claim]:
        claims: list[Claim] = []
        for one in candidates:
            try:
                claims.append(self._claim(one, moment))
            except _NotTaken as error:
                if self._is_settled(one, moment):
                    found.reject(one, str(error))
                else:
                    found.waiting.append(one.entry)
        return claims

    def _claim(self, candidate: Candidate, moment: _Moment) -> Claim:
        """Whose it is, complete or not: two of one name must not depend on which is complete."""
        if candidate.kind is None:
            raise _NotTaken(candidate.problem)
        said = self._team_file(candidate, moment)
        if said.team is not None:
            return Claim(
                candidate=candidate, kind=candidate.kind, team=said.team, declared=True, said=said
            )
        try:
            team = slug(candidate.stem)
        except ValueError as error:
            raise _NotTaken(str(error)) from error
        return Claim(candidate=candidate, kind=candidate.kind, team=team, declared=False, said=said)

    def _team_file(self, candidate: Candidate, moment: _Moment) -> TeamFile:
        thing = candidate.team_file
        if thing is None:
            return TeamFile()
        stamp, said = self._said.get(thing.name, ("", ""))
        if stamp != thing.stamp:
            said = self._read_team_file(PurePosixPath(thing.name))
            if self._is_still(thing, moment):
                self._said[thing.name] = thing.stamp, said
        if isinstance(said, str):
            raise _NotTaken(said)
        return said

    def _read_team_file(self, name: PurePosixPath) -> TeamFile | str:
        try:
            return read_team_file(self._root, name, self._challenge)
        except SubmissionError as error:
            return str(error)
        except OSError as error:
            return f"team file: cannot be read ({error.strerror})"

    def _is_settled(self, candidate: Candidate, moment: _Moment) -> bool:
        said, thing = candidate.team_file, candidate.thing
        if said is not None and not self._is_still(said, moment):
            return False
        # What was read before is complete; but what was read at a time when nobody watched may
        # have been on its way, and have stood still for a moment only.
        if self._known(candidate) is not None and self._is_still(thing, moment):
            return True
        return all(
            self._settling.is_settled(one, moment.now_s, watching=moment.watching)
            for one in (thing, candidate.around)
            if one is not None
        )

    def _is_still(self, thing: Thing, moment: _Moment) -> bool:
        return self._settling.is_still(thing, moment.now_s, watching=moment.watching)

    def _known(self, candidate: Candidate) -> str | None:
        if (stamp := candidate.content_stamp) is None:
            return None
        return self._contents.known(self._root / candidate.name, stamp)

    def _take(
        self,
        claim: Claim,
        rivals: dict[str, list[str]],
        namesakes: Sequence[str],
        moment: _Moment,
        found: _Found,
    ) -> None:
        candidate = claim.candidate
        try:
            self._check(claim, rivals, moment)
            upload = self._upload(claim, moment)
        except _NotTaken as error:
            found.reject(candidate, str(error), claim.team)
        except _NotYet:
            found.waiting.append(candidate.entry)
        else:
            notes = claim.said.notes
            if claim.said.image is not None and candidate.kind is not UploadKind.IMAGE:
                notes = (*notes, "image: left out, since there is a file")
            if namesakes:
                said = f"its team file says that it is {claim.team}'s, as the name of"
                notes = (*notes, f"{said} {', '.join(namesakes)} does: is it?")
            found.uploads.append(self._arrived(upload, claim.said.info, notes))

    def _check(self, claim: Claim, rivals: dict[str, list[str]], moment: _Moment) -> None:
        named = self._override(claim.team).image
        if named is not None:
            raise _NotTaken(f"the campaign's file names an image for {claim.team}, in its place")
        others = rivals.get(claim.team, ())
        if others and not claim.declared:
            raise _NotTaken(
                f"{', '.join(others)} all stand for the team {claim.team}: say whose they are with "
                f"`team:` in a NAME.team.yaml beside each, or rename them"
            )
        if not self._is_settled(claim.candidate, moment):
            raise _NotYet
        if claim.candidate.problem is not None:
            raise _NotTaken(claim.candidate.problem)

    def _upload(self, claim: Claim, moment: _Moment) -> Upload:
        candidate = claim.candidate
        if candidate.kind is UploadKind.IMAGE:
            if claim.said.image is None:
                raise _NotTaken(
                    "a team file without `image:`, and nothing of its name beside it or in its "
                    "folder"
                )
            return self._image(claim.team, claim.said.image, claim.said.tasks, moment)
        if self._known(candidate) is None and not moment.may_read:
            raise _NotYet
        return Upload(
            team=claim.team,
            kind=claim.kind,
            entry=candidate.entry,
            path=self._root / candidate.name,
            sha256=self._read(candidate),
            size_bytes=candidate.size_bytes,
            arrived_s=candidate.thing.changed_s,
            tasks=claim.said.tasks,
        )

    def _read(self, candidate: Candidate) -> str:
        try:
            if candidate.tree is not None:
                digest = self._contents.of_tree(self._root, candidate.name, candidate.tree)
            elif candidate.file is not None:
                digest = self._contents.of_file(self._root, candidate.name, candidate.file)
            else:
                digest = None
        except OSError as error:
            if error.errno in _GONE:
                raise _NotYet from error
            raise _NotTaken(f"cannot be read ({error.strerror})") from error
        if digest is None:
            raise _NotYet
        return digest

    def _take_named_images(self, moment: _Moment, found: _Found) -> None:
        """Those of the campaign's file."""
        for team, override in self._policy.teams.items():
            if override.image is None:
                continue
            try:
                upload = self._image(team, override.image, None, moment)
            except _NotTaken as error:
                entry = harmless_line(override.image, _MAX_SHOWN)
                found.rejected.append(UploadRejected(entry=entry, reason=str(error), team=team))
            else:
                found.uploads.append(self._arrived(upload, TeamInfo(), ()))

    def _image(
        self, team: str, name: str, tasks: tuple[str, ...] | None, moment: _Moment
    ) -> Upload:
        image_id = self._image_id_of(name)
        shown = harmless_line(name, _MAX_SHOWN)
        if image_id is None:
            raise _NotTaken(f"image {shown}: expected one of this name here, found none")
        if not _IMAGE_ID.fullmatch(image_id):
            raise _NotTaken(f"image {shown}: expected an ID such as sha256:..., found {image_id}")
        return Upload(
            team=team,
            kind=UploadKind.IMAGE,
            entry=shown,
            path=None,
            sha256=image_id,
            size_bytes=None,
            arrived_s=self._first_seen_s.setdefault((team, image_id), moment.now_s),
            tasks=tasks,
        )

    def _arrived(self, upload: Upload, info: TeamInfo, notes: tuple[str, ...]) -> Arrived:
        """With what the organisers say of the team."""
        override = self._override(upload.team)
        return Arrived(
            upload=upload.model_copy(update={"tasks": override.tasks or upload.tasks}),
            info=info.model_copy(
                update={
                    "display_name": override.display_name or info.display_name,
                    "contact": override.contact or info.contact,
                }
            ),
            notes=notes,
        )

    def _override(self, team: str) -> TeamOverride:
        return self._policy.teams.get(team, TeamOverride())


def _once_each(uploads: Iterable[Arrived]) -> list[Arrived]:
    """By arrival. What a team has handed in twice is the one that came first; what two teams have
    handed in is told."""
    kept: dict[str, Arrived] = {}
    copies: dict[str, list[str]] = defaultdict(list)
    teams: dict[str, set[str]] = defaultdict(set)
    for one in sorted(uploads, key=lambda one: (one.upload.arrived_s, one.upload.entry)):
        upload = one.upload
        teams[upload.sha256].add(upload.team)
        if kept.setdefault(upload.id, one) is not one:
            copies[upload.id].append(upload.entry)
    return [
        replace(
            one,
            notes=(
                *one.notes,
                *(f"{entry} is the same once more" for entry in copies[name][:MAX_NAMED]),
                *_shared(one.upload, teams),
            ),
        )
        for name, one in kept.items()
    ]


def _shared(upload: Upload, teams: dict[str, set[str]]) -> list[str]:
    others = sorted(teams[upload.sha256] - {upload.team})
    return [f"the same content as that of {', '.join(others[:MAX_NAMED])}"] if others else []
