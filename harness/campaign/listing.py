"""What lies in the submissions folder, by names and statuses alone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from harness.campaign.entry_name import (
    DOCKERFILE,
    EXPECTED,
    TEAM_FILE,
    TEAM_FILE_ENDING,
    is_in_progress,
    name_problem,
    shown_name,
    split_name,
)
from harness.campaign.settling import Thing
from harness.campaign.tree import MAX_MEMBERS, Member, Sort, Stamp, Tree, link_leaves, read_tree
from harness.campaign.tree import sort_of as sort_of_mode
from harness.campaign.upload import UploadKind
from harness.challenge.quantity import format_bytes
from harness.errors import CampaignError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NOT_TAKEN = {
    Sort.LINK: "a link, which is not followed; put the file itself there",
    Sort.OTHER: "a pipe, a socket or a device; expected a file or a folder",
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What may be an upload. ``name`` is its path below the submissions folder, ``stem`` what its
    team is called when nobody says otherwise.

    ``kind`` None: it is none, and ``problem`` says why; of others, too, ``problem`` says why they
    are not taken. ``kind`` IMAGE: a team file without a file beside it. ``thing`` is what must not
    change any more; ``around``, the team's folder that it lies in, or None. ``file``: of a file,
    ``tree``: of a folder with a Dockerfile.
    """

    name: PurePosixPath
    kind: UploadKind | None
    stem: str
    thing: Thing
    size_bytes: int | None = None
    file: Stamp | None = None
    tree: Tree | None = None
    team_file: Thing | None = None
    around: Thing | None = None
    problem: str | None = None

    @property
    def entry(self) -> str:
        """Fit to be shown."""
        return "/".join(map(shown_name, self.name.parts))

    @property
    def content_stamp(self) -> str | None:
        """That its digest is remembered by; None for what has no content here."""
        if self.tree is not None:
            return self.tree.stamp
        return None if self.file is None else str(self.file)

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(one for one in (self.thing, self.team_file, self.around) if one is not None)


@dataclass(kw_only=True)
class Listing:
    """``in_progress``: under a name that says that it is not complete."""

    candidates: list[Candidate] = field(default_factory=list)
    in_progress: list[Thing] = field(default_factory=list)


def list_entries(root: Path, largest_bytes: int) -> Listing:
    """Everything in the submissions folder ``root``. Raises CampaignError when that is not there,
    or cannot be looked into; for anything in it there is a candidate with a problem."""
    listing = Listing()
    top = _top(root)
    for member in top:
        if is_in_progress(member.path):
            listing.in_progress += _in_progress(root, member)
    visible = [one for one in top if not is_in_progress(one.path)]
    lister = _Lister(root, largest_bytes, listing, {one.path: one for one in visible})
    for member in visible:
        lister.add(member)
    return listing


def _top(root: Path) -> list[Member]:
    members: list[Member] = []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                members.append(
                    Member(
                        path=entry.name, sort=sort_of_mode(status.st_mode), stamp=Stamp.of(status)
                    )
                )
    except OSError as error:
        raise CampaignError(
            f"submissions folder {root}: {(error.strerror or str(error)).lower()}; expected a "
            "folder with an entry for each upload"
        ) from error
    return sorted(members, key=lambda one: one.path)


class _Lister:
    """``beside``: all that lies in the submissions folder itself."""

    def __init__(
        self, root: Path, largest_bytes: int, listing: Listing, beside: dict[str, Member]
    ) -> None:
        self._root = root
        self._largest_bytes = largest_bytes
        self._listing = listing
        self._beside = beside
        self._stems = _stems(beside.values())

    def add(self, member: Member) -> None:
        name = member.path
        if (problem := name_problem(name) or _NOT_TAKEN.get(member.sort)) is not None:
            self._refuse(PurePosixPath(name), name, member, problem)
        elif member.sort is Sort.FOLDER:
            self._add_folder(member)
        elif name.endswith(TEAM_FILE_ENDING):
            self._add_team_file(member)
        else:
            stem = (split_name(name) or (name, None))[0]
            self._add_file(member, PurePosixPath(name), stem, self._team_file(stem), None)

    def _add_team_file(self, member: Member) -> None:
        stem = member.path.removesuffix(TEAM_FILE_ENDING)
        if stem in self._stems:
            return  # it belongs to what lies beside it
        thing = _thing(PurePosixPath(member.path), member)
        self._add(PurePosixPath(member.path), UploadKind.IMAGE, stem, thing, team_file=thing)

    def _add_folder(self, member: Member) -> None:
        name, stem = PurePosixPath(member.path), member.path
        try:
            tree = read_tree(self._root, name)
        except OSError as error:
            self._refuse(name, stem, member, f"cannot be looked into ({error.strerror})")
            return
        inside = tree.find(TEAM_FILE)
        team_file = _thing(name / TEAM_FILE, inside) if inside else self._team_file(stem)
        around = _folder_thing(name, member, tree)
        if tree.is_cut:
            problem = f"more than {MAX_MEMBERS} files in it"
            self._add(name, None, stem, around, problem=problem)
        elif tree.find(DOCKERFILE) is not None:
            self._add_built(name, stem, member, tree, team_file, None)
        else:
            self._add_team_folder(name, tree, team_file, around)

    def _add_team_folder(
        self, name: PurePosixPath, tree: Tree, team_file: Thing | None, around: Thing
    ) -> None:
        stem = name.name
        before = len(self._listing.candidates)
        top = list(tree.top())
        stems = _stems(top)
        for one in top:
            if is_in_progress(one.path):
                self._listing.in_progress.append(_thing(name / one.path, one))
            elif one.path != TEAM_FILE and not _is_manifest(one.path, stems):
                self._add_inner(name, one, tree, team_file, around)
        if any(one.kind is not None for one in self._listing.candidates[before:]):
            return
        if team_file is not None:
            self._add(
                name / TEAM_FILE, UploadKind.IMAGE, stem, team_file, team_file=team_file,
                around=around,
            )  # fmt: skip
        else:
            problem = f"no {DOCKERFILE} in it, and no upload ({EXPECTED} with a {DOCKERFILE})"
            self._add(name, None, stem, around, problem=problem)

    def _add_inner(
        self,
        folder: PurePosixPath,
        member: Member,
        tree: Tree,
        team_file: Thing | None,
        around: Thing,
    ) -> None:
        name, stem = folder / member.path, folder.name
        problem = name_problem(member.path) or _NOT_TAKEN.get(member.sort) or member.problem
        if problem is not None:
            self._refuse(name, stem, member, problem, around)
        elif member.sort is Sort.FILE:
            self._add_file(member, name, stem, team_file, around)
        elif tree.find(f"{member.path}/{DOCKERFILE}") is not None:
            self._add_built(name, stem, member, tree.under(member.path), team_file, around)
        else:
            self._refuse(name, stem, member, f"no {DOCKERFILE} in it", around)

    def _add_file(
        self,
        member: Member,
        name: PurePosixPath,
        stem: str,
        team_file: Thing | None,
        around: Thing | None,
    ) -> None:
        found = split_name(name.name)
        if found is None:
            if around is None and _is_manifest(name.name, self._stems):
                return
            wrong = (
                f"belongs into a team's folder, or is to be called NAME{TEAM_FILE_ENDING}"
                if name.name == TEAM_FILE
                else f"no upload: {EXPECTED}"
            )
            self._refuse(name, stem, member, wrong, around)
            return
        size_bytes = member.stamp.size_bytes
        self._add(
            name,
            found[1],
            stem,
            _thing(name, member),
            size_bytes=size_bytes,
            file=member.stamp,
            team_file=team_file,
            around=around,
            problem="an empty file" if size_bytes == 0 else self._too_large(size_bytes),
        )

    def _add_built(
        self,
        name: PurePosixPath,
        stem: str,
        member: Member,
        tree: Tree,
        team_file: Thing | None,
        around: Thing | None,
    ) -> None:
        """A folder with a Dockerfile."""
        self._add(
            name,
            UploadKind.FOLDER,
            stem,
            _folder_thing(name, member, tree),
            size_bytes=tree.size_bytes,
            tree=tree,
            team_file=team_file,
            around=around,
            problem=self._problem_in(name, tree) or self._too_large(tree.size_bytes),
        )

    def _problem_in(self, name: PurePosixPath, tree: Tree) -> str | None:
        for one in tree.members:
            problem = one.problem
            if one.sort is Sort.LINK and problem is None:
                if _leaves(self._root / name, one.path):
                    problem = "a link that leads out of the folder"
            elif one.path == DOCKERFILE and one.sort is not Sort.FILE:
                problem = "expected a file"
            if problem is not None:
                shown = "/".join(map(shown_name, one.path.split("/")))[-200:]
                return f"{shown} in it: {problem}"
        return None

    def _too_large(self, size_bytes: int) -> str | None:
        if size_bytes <= self._largest_bytes:
            return None
        return (
            f"size: expected at most {format_bytes(self._largest_bytes)}, found "
            f"{format_bytes(size_bytes)}"
        )

    def _team_file(self, stem: str) -> Thing | None:
        name = stem + TEAM_FILE_ENDING
        member = self._beside.get(name)
        return None if member is None else _thing(PurePosixPath(name), member)

    def _refuse(
        self,
        name: PurePosixPath,
        stem: str,
        member: Member,
        problem: str,
        around: Thing | None = None,
    ) -> None:
        self._add(name, None, stem, _thing(name, member), around=around, problem=problem)

    def _add(
        self,
        name: PurePosixPath,
        kind: UploadKind | None,
        stem: str,
        thing: Thing,
        *,
        size_bytes: int | None = None,
        file: Stamp | None = None,
        tree: Tree | None = None,
        team_file: Thing | None = None,
        around: Thing | None = None,
        problem: str | None = None,
    ) -> None:
        self._listing.candidates.append(
            Candidate(
                name=name,
                kind=kind,
                stem=stem,
                thing=thing,
                size_bytes=size_bytes,
                file=file,
                tree=tree,
                team_file=team_file,
                around=around,
                problem=problem,
            )
        )


def _stems(members: Iterable[Member]) -> frozenset[str]:
    """Names without endings, of what may be uploads."""
    found = {
        one.path if one.sort is Sort.FOLDER else (split_name(one.path) or ("", None))[0]
        for one in members
    }
    return frozenset(found - {""})


def _is_manifest(name: str, stems: frozenset[str]) -> bool:
    """What `harness export` writes beside an image's file; nobody's upload."""
    return name.endswith(".json") and name.removesuffix(".json") in stems


def _leaves(folder: Path, path: str) -> bool:
    try:
        return link_leaves(folder, PurePosixPath(path))
    except OSError:  # it is none any more: it has changed, which is seen when it is read
        return True


def _thing(name: PurePosixPath, member: Member) -> Thing:
    stamp = member.stamp
    return Thing(
        name=str(name),
        stamp=f"{member.sort}-{stamp}",
        renamed=f"{stamp.inode}-{stamp.size_bytes}-{stamp.mtime_ns}",
        changed_s=stamp.changed_s,
    )


def _folder_thing(name: PurePosixPath, member: Member, tree: Tree) -> Thing:
    stamp = tree.stamp
    return Thing(
        name=f"{name}/",
        stamp=stamp,
        renamed=f"{member.stamp.inode}-{stamp}",
        changed_s=max(tree.changed_s, member.stamp.changed_s),
    )


def _in_progress(root: Path, member: Member) -> list[Thing]:
    name = PurePosixPath(member.path)
    if member.sort is not Sort.FOLDER:
        return [_thing(name, member)]
    try:
        return [_folder_thing(name, member, read_tree(root, name))]
    except OSError:
        return []  # it then has to settle under its proper name
