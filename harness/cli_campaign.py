"""`harness campaign`, and what is asked of one: `status`, `retry`, `drop`. What these do is
imported when they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cache import CacheMode
from harness.challenge.model import DEFAULT_CHALLENGE
from harness.cli_cluster import TlsCaOption, TlsCertOption, TlsKeyOption  # noqa: TC001
from harness.cli_options import (
    BaseImageOption,
    ChallengeOption,
    DataOption,
    EngineArgument,
    EngineOption,
    LimitOption,
    PlaceGpuOption,
    ReadOnlyRootOption,
    RuntimeOption,
    TruthOption,
)

OutOption = Annotated[
    Path, typer.Option("--out", help="Folder that keeps every run, and the campaign's journal.")
]
TeamArgument = Annotated[str, typer.Argument(metavar="TEAM", help="As `harness status` has it.")]

app = typer.Typer()


@app.command()
def campaign(
    submissions: Annotated[
        Path,
        typer.Argument(
            help="Folder of uploads: images' files, folders with a Dockerfile, zips of fields, "
            "names of images in team.yaml.",
        ),
    ],
    data: DataOption = Path("test"),
    truth: TruthOption = None,
    out: OutOption = Path("runs"),
    policy: Annotated[
        Path | None,
        typer.Option(
            "--campaign",
            metavar="FILE",
            help="The campaign's file (docs/campaigns.md): order, limits a day, retries, "
            "calibration. \\[default: none, and its defaults]",
            show_default=False,
        ),
    ] = None,
    challenge: ChallengeOption = DEFAULT_CHALLENGE,
    engine: EngineArgument = EngineOption.AUTO,
    base_image: BaseImageOption = None,
    cache: Annotated[
        CacheMode,
        typer.Option("--cache", help="warm or cold: as in `harness run`, for every run."),
    ] = CacheMode.WARM,
    gpus: PlaceGpuOption = None,
    limit: LimitOption = None,
    read_only_root: ReadOnlyRootOption = False,
    runtime: RuntimeOption = None,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            help="Shuffle the teams by it, in place of the campaign file's.",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on for ever: take up uploads as they appear.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            metavar="HOST:PORT",
            help="Make the attempts on the workers of this scheduler (docs/cluster.md), not here.",
            show_default=False,
        ),
    ] = None,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines for a log file, on a terminal too.")
    ] = False,
) -> None:
    """Run every team's upload, check and score it, and lose nothing: the same command goes on.

    Does what is outstanding and no more. Exit code 0: nothing is left for the organiser to mend;
    10-15, 29-36 and 46: the worst of what is; 130: it was interrupted (docs/campaigns.md).
    """
    from harness.campaigning import Request, run_campaign  # noqa: PLC0415
    from harness.engine.base import Isolation  # noqa: PLC0415

    request = Request(
        submissions=submissions,
        data=data,
        truth=truth,
        runs=out,
        policy=policy,
        challenge=challenge,
        engine=engine.value,
        base_image=base_image,
        cache=cache,
        gpu=gpus,
        limits=tuple(limit or ()),
        isolation=Isolation(read_only_root=read_only_root, runtime=runtime),
        seed=seed,
        watch=watch,
        scheduler=scheduler,
        tls_files=(tls_ca, tls_cert, tls_key),
        plain=plain,
    )
    raise typer.Exit(run_campaign(request))


@app.command()
def status(
    out: OutOption = Path("runs"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what status.json has, and nothing else.")
    ] = False,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="Every attempt of every team, not only one.")
    ] = False,
) -> None:
    """Show where a campaign stands; it may go on meanwhile."""
    from harness.campaign_asked import show_status  # noqa: PLC0415

    show_status(out, as_json=as_json, all_attempts=all_attempts)


@app.command()
def retry(
    team: TeamArgument,
    out: OutOption = Path("runs"),
) -> None:
    """Run a team's latest upload once more, whatever came of it; takes back `harness drop`.

    What there is stays. Exit code 15: the campaign has no such team.
    """
    from harness.campaign_asked import ask_retry  # noqa: PLC0415

    ask_retry(team, out)


@app.command()
def drop(
    team: TeamArgument,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Why, for the record.", show_default=False)
    ] = None,
    out: OutOption = Path("runs"),
) -> None:
    """Run nothing of a team any more. What there is of it stays, and is published no more.

    Exit code 15: the campaign has no such team.
    """
    from harness.campaign_asked import ask_drop  # noqa: PLC0415

    ask_drop(team, reason, out)
