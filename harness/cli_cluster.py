"""`harness cluster`: the scheduler and the workers of a campaign on several machines."""

from __future__ import annotations

import asyncio
import platform
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import console
from harness.challenge.quantity import parse_bytes
from harness.cli_options import DataOption, EngineArgument, EngineOption, PlaceGpuOption
from harness.errors import OptionError, OutputError

if TYPE_CHECKING:
    from harness.campaign.order import Place
    from harness.engine.base import Engine

app = typer.Typer(
    name="cluster",
    help="The scheduler and the workers of a campaign on several machines.",
    no_args_is_help=True,
)

TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        help="Certificate (PEM) of the authority that signed every certificate of this cluster.",
        show_default=False,
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", help="This process's certificate (PEM).", show_default=False),
]
TlsKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", help="Its private key (PEM).", show_default=False)
]


@app.command("scheduler")
def run_the_scheduler(
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; with TLS any, else loopback.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: one that is free.")] = 0,
    address_file: Annotated[
        Path | None,
        typer.Option(
            "--address-file", help="File that gets the address once it listens.", show_default=False
        ),
    ] = None,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
) -> None:
    """Run the scheduler, until Ctrl-C. It keeps nothing: restarted on the same port, all goes on.

    Whoever may connect can have any code run by it and by every worker: so it listens on loopback,
    or asks for a certificate (docs/cluster.md).
    """
    require_extra()
    from harness.cluster.scheduler import run_scheduler  # noqa: PLC0415 - with an extra
    from harness.cluster.security import require_safe, tls_of  # noqa: PLC0415
    from harness.cluster.settings import configure  # noqa: PLC0415

    tls = tls_of(tls_ca, tls_cert, tls_key)
    require_safe(host, tls)
    configure()

    def ready(address: str) -> None:
        if address_file is not None:
            _write_address(address_file, address)
        console.note(f"scheduler at {address}; Ctrl-C ends it")

    asyncio.run(run_scheduler(host, port, tls, ready))


@app.command("worker")
def run_a_worker(
    address: Annotated[str, typer.Argument(help="The scheduler's address, host:port.")],
    data: DataOption = Path("test"),
    work: Annotated[
        Path,
        typer.Option("--work", help="Folder of this worker alone, for runs and uploads."),
    ] = Path("work"),
    gpu: PlaceGpuOption = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Unique in the cluster. \\[default: the machine's name, and the GPU's index]",
            show_default=False,
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            help="Name of this machine, equal for its workers alone: of each machine, one run is "
            "timed at a time. \\[default: the host's name]",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            help="The address others reach it at. \\[default: the one that leads to the scheduler]",
            show_default=False,
        ),
    ] = None,
    engine: EngineArgument = EngineOption.AUTO,
    keep_uploads: Annotated[
        str,
        typer.Option(
            "--keep-uploads",
            metavar="SIZE",
            help="What the uploads in --work may take before those that were not used for longest "
            "make room, such as 50GiB.",
        ),
    ] = "100GiB",
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
) -> None:
    """Make a campaign's runs on this machine, one at a time, until Ctrl-C.

    Start one a machine, or one a GPU. A run under way goes on while the scheduler or the conductor
    is lost, and what was made is kept in --work until the campaign has it.
    """
    require_extra()
    from harness.cluster.bench import Bench, JobSettings  # noqa: PLC0415
    from harness.cluster.dead import finish_dead  # noqa: PLC0415
    from harness.cluster.facts import Versions, WorkerFacts  # noqa: PLC0415
    from harness.cluster.security import require_safe, scheduler_address, tls_of  # noqa: PLC0415
    from harness.cluster.settings import configure  # noqa: PLC0415
    from harness.cluster.worker import WorkerLoop  # noqa: PLC0415
    from harness.engine.choose import choose_engine  # noqa: PLC0415

    try:
        kept_bytes = parse_bytes(keep_uploads)
    except ValueError as error:
        raise OptionError(f"--keep-uploads {keep_uploads}: {error}") from error
    tls = tls_of(tls_ca, tls_cert, tls_key)
    scheduler = scheduler_address(address, tls)
    if host is not None:
        require_safe(host, tls)
    chosen, notice = choose_engine(engine.value)
    if notice is not None:
        console.warn(notice)
    place = _place(chosen, gpu, name, machine or platform.node())
    configure()
    settings = JobSettings(
        work_dir=work.resolve(),
        data_dir=data.resolve(),
        engine=chosen.info.name,
        place=place,
    )
    bench = Bench(settings, finish_dead, kept_bytes)
    facts = WorkerFacts(
        versions=Versions.here(),
        place=place,
        engine=chosen.info.name,
        session=uuid.uuid4().hex,
    )

    def registered() -> None:
        console.note(f"worker {place.name}: registered with {scheduler}; Ctrl-C ends it")

    async def run() -> None:
        loop = WorkerLoop(bench, facts, scheduler, tls, host, registered)
        await loop.run()

    asyncio.run(run())


def require_extra() -> None:
    """Raises OptionError where Dask is not installed."""
    try:
        import distributed  # noqa: F401, PLC0415
    except ImportError as error:
        raise OptionError(
            "several machines need Dask's distributed: pip install 'l2r-harness[cluster]'"
        ) from error


def _place(engine: Engine, gpu: str | None, name: str | None, machine: str) -> Place:
    """Raises OptionError for a GPU that is not there."""
    from harness.campaign.order import Place  # noqa: PLC0415
    from harness.gpu_choice import one_gpu  # noqa: PLC0415
    from harness.machine.fingerprint import take_fingerprint  # noqa: PLC0415
    from harness.machine.gpu import gpus  # noqa: PLC0415

    found = one_gpu(gpu, gpus(), why_not=engine.why_no_gpus)
    uuid_ = None if found is None else found[1]
    label = machine if found is None else f"{machine}-gpu{found[0]}"
    info = engine.info
    return Place(
        name=name or label,
        machine=machine,
        gpu=uuid_,
        machine_digest=take_fingerprint(f"{info.name} {info.version}").digest,
    )


def _write_address(path: Path, address: str) -> None:
    """All of it or nothing: others wait for the file."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(f"{address}\n", "ascii")
        part.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from error
