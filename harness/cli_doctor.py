"""``harness doctor``: what this machine has, and what it lacks."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness import console
from harness.challenge.model import DEFAULT_CHALLENGE, load_challenge
from harness.cli_options import ChallengeOption  # noqa: TC001 - typer reads it
from harness.doctor.examine import Examination, examine
from harness.doctor.finding import Finding, Level
from harness.engine.own_image import PUBLIC_BASE, own_name

_SCHEMA_VERSION = 1


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(doctor)


def doctor(
    challenge: ChallengeOption = DEFAULT_CHALLENGE,
    image: Annotated[
        str | None,
        typer.Option(
            "--image",
            help="Image to try limits with; any with a shell. \\[default: the harness's own, else "
            "its base]",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Start no containers: limits are not tried out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what this machine has for timed runs and what it lacks, with the command that gets it.

    The limits of containers are tried out in throwaway ones. Exit code 1: something failed, as a
    limit that does not hold. Warnings do not change it. docs/doctor.md explains every line.
    """
    asked = Examination(
        limits=load_challenge(challenge).limits,
        images=(own_name(), PUBLIC_BASE),
        image=image,
        quick=quick,
    )
    findings = []
    for finding in examine(asked):
        findings.append(finding)
        if not as_json:
            console.show_finding(finding)
    worst = max(finding.level for finding in findings)
    if as_json:
        console.out.file.write(_to_json(findings, worst) + "\n")
    raise typer.Exit(1 if worst is Level.FAILURE else 0)


def _to_json(findings: list[Finding], worst: Level) -> str:
    lines = [
        {
            "level": finding.level.name.lower(),
            "subject": finding.subject,
            "found": finding.found,
            "remedy": finding.remedy or None,
            "command": finding.command or None,
        }
        for finding in findings
    ]
    document = {
        "schema_version": _SCHEMA_VERSION,
        "worst": worst.name.lower(),
        "findings": lines,
    }
    return json.dumps(document, indent=1)
