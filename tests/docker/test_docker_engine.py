"""The container engine against real containers: how runs end, what they may do, what is left."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import docker.errors
import pytest

from harness.engine.arguments import RUN_LABEL
from harness.engine.base import EngineName, ExitState, Image
from harness.errors import (
    BaseImageUnavailable,
    BuildError,
    EngineError,
    ImageMissing,
)
from harness.sampler.belonging import in_container
from tests.docker.conftest import MIB, shell_spec

if TYPE_CHECKING:
    from docker import DockerClient

    from harness.engine.container import ContainerExecution
    from harness.engine.docker import DockerEngine
    from tests.docker.conftest import MakeRun

pytestmark = pytest.mark.docker

REPOSITORY = Path(__file__).parents[2]
NOWHERE = "registry.invalid/nobody/nothing:1"  # .invalid never resolves: RFC 2606

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes users: needs root")


def execute(execution: ContainerExecution, timeout_s: float = 60.0) -> ExitState:
    with execution:
        execution.start()
        state = execution.wait(timeout_s)
    assert state is not None, "it still ran"
    return state


def log_of(folder: Path) -> str:
    path = folder / "log.txt"
    return path.read_text("utf-8", "replace") if path.exists() else ""


def wait_for_log(folder: Path, text: str) -> None:
    deadline_s = time.monotonic() + 20
    while text not in log_of(folder):
        assert time.monotonic() < deadline_s, f"{text} never appeared in the log"
        time.sleep(0.02)


def containers_of(client: DockerClient, folder: Path) -> list[str]:
    """Names of the containers of the runs in this test's folder, in whatever state."""
    label = f"{RUN_LABEL}=test-{folder.name}"
    return [c.name or "" for c in client.containers.list(all=True, filters={"label": label})]


def test_info(engine: DockerEngine) -> None:
    assert engine.info.name is EngineName.DOCKER
    assert engine.info.version
    assert "no network" in engine.info.isolation


def test_its_processes_are_told_from_others(
    engine: DockerEngine, shell_image: Image, folder: Path, client: DockerClient
) -> None:
    """And it has no GPU that NVIDIA's runtime would hand out without being asked."""
    spec = shell_spec(shell_image, folder, "echo gpus=$NVIDIA_VISIBLE_DEVICES; sleep 60")
    with engine.prepare(dataclasses.replace(spec, gpus=())) as execution:
        execution.start()
        own = execution.own()
        assert own is not None
        wait_for_log(folder, "gpus=void")
        (name,) = containers_of(client, folder)
        pid = client.containers.get(name).attrs["State"]["Pid"]
        assert in_container(Path(f"/proc/{pid}/cgroup").read_text(), own.container)
        assert not in_container(Path("/proc/self/cgroup").read_text(), own.container)


class TestEnding:
    def test_exit_code_and_both_streams(self, shell: MakeRun, folder: Path) -> None:
        state = execute(shell("echo out; echo err >&2; exit 3"))
        assert state == ExitState(exit_code=3, out_of_memory=False)
        assert sorted(log_of(folder).split()) == ["err", "out"]

    def test_crash_by_a_signal(self, shell: MakeRun) -> None:
        state = execute(shell("kill -SEGV $$"))
        assert state == ExitState(exit_code=128 + signal.SIGSEGV, out_of_memory=False)

    def test_a_program_that_is_not_there(
        self, tag: str, engine: DockerEngine, base: str, folder: Path
    ) -> None:
        (folder / "Dockerfile").write_text(f'FROM {base}\nENTRYPOINT ["/nonexistent"]\n')
        image = engine.build(folder, tag=tag)
        state = execute(engine.prepare(shell_spec(image, folder, "")))
        assert state == ExitState(exit_code=127, out_of_memory=False)
        assert "/nonexistent" in log_of(folder)

    def test_the_log_is_there_while_it_runs(self, shell: MakeRun, folder: Path) -> None:
        with shell("echo loading; sleep 60") as execution:
            execution.start()
            wait_for_log(folder, "loading")
            assert execution.wait(0.1) is None

    def test_waiting_again_gives_the_same(self, shell: MakeRun) -> None:
        with shell("exit 4") as execution:
            execution.start()
            assert execution.wait(20) == execution.wait(0) == execution.stop()

    def test_stop_before_start(self, shell: MakeRun) -> None:
        with shell("true") as execution:
            assert execution.stop() == ExitState(exit_code=None, out_of_memory=False)

    def test_stop_asks_first(self, shell: MakeRun, folder: Path) -> None:
        with shell("trap 'echo bye; exit 9' TERM; echo up; sleep 60 & wait") as execution:
            execution.start()
            wait_for_log(folder, "up")
            assert execution.stop(grace_s=10).exit_code == 9
        assert "bye" in log_of(folder)

    def test_stop_kills_what_does_not_listen(
        self, shell: MakeRun, folder: Path, client: DockerClient
    ) -> None:
        with shell("trap '' TERM; echo up; while :; do sleep 0.2; done") as execution:
            execution.start()
            wait_for_log(folder, "up")
            start_s = time.monotonic()
            state = execution.stop(grace_s=0.5)
            assert 0.5 <= time.monotonic() - start_s < 10
            assert client.containers.get(execution.container_name).status == "exited"
        assert state == ExitState(exit_code=128 + signal.SIGKILL, out_of_memory=False)

    def test_somebody_removes_it_while_it_runs(
        self, shell: MakeRun, folder: Path, client: DockerClient
    ) -> None:
        with shell("echo up; sleep 60") as execution:
            execution.start()
            wait_for_log(folder, "up")
            client.api.remove_container(execution.container_name, force=True)
            assert execution.wait(20) == ExitState(exit_code=None, out_of_memory=False)


class TestLimits:
    GREEDY = "python3 -c 'x = bytearray(300 << 20)'"

    def test_out_of_memory(self, shell: MakeRun) -> None:
        state = execute(shell(f"exec {self.GREEDY}", memory_bytes=64 * MIB))
        assert state == ExitState(exit_code=137, out_of_memory=True)

    def test_out_of_memory_in_a_child_only(self, shell: MakeRun) -> None:
        """The main process goes on and exits with 0, as data loaders' parents do."""
        state = execute(shell(f"{self.GREEDY}; exit 0", memory_bytes=64 * MIB))
        assert state == ExitState(exit_code=0, out_of_memory=True)

    def test_shared_memory_has_the_given_size(self, shell: MakeRun, folder: Path) -> None:
        execute(shell("df -k /dev/shm | tail -n 1", shared_memory_bytes=48 * MIB))
        assert str(48 * 1024) in log_of(folder)

    def test_processes(self, shell: MakeRun, folder: Path) -> None:
        script = "i=0; while [ $i -lt 100 ]; do sleep 30 & i=$((i + 1)); done; echo all of them"
        assert execute(shell(script, processes=32)).exit_code != 0
        assert "fork" in log_of(folder)
        assert "all of them" not in log_of(folder)

    def test_log(self, shell: MakeRun, folder: Path) -> None:
        """200 MB of output in seconds: kept at both ends, and the submission is not held up."""
        start_s = time.monotonic()
        script = "echo first; head -c 200000000 /dev/zero | tr '\\0' x; echo; echo last"
        state = execute(shell(script, log_bytes=MIB))
        assert state.exit_code == 0
        assert time.monotonic() - start_s < 60
        log = (folder / "log.txt").read_bytes()
        assert len(log) <= MIB
        assert log.startswith(b"first\n")
        assert log.endswith(b"last\n")
        left_out = 200_000_012 - MIB
        assert any(
            f"{n} bytes of output left out".encode() in log for n in range(left_out, left_out + 100)
        )


class TestIsolation:
    def test_no_network(self, shell: MakeRun, folder: Path) -> None:
        execute(shell("ls /sys/class/net; cat /proc/net/route"))
        interfaces = log_of(folder).split("Iface")[0].split()
        assert "lo" in interfaces
        assert not [name for name in interfaces if name.startswith(("eth", "en", "wl"))]
        assert "00000000" not in log_of(folder), "there is a default route"

    def test_data_is_read_only_and_output_is_not(self, shell: MakeRun, folder: Path) -> None:
        state = execute(shell("echo x > /l2r/submission/field; echo x > /l2r/test/new"))
        assert state.exit_code != 0
        assert "Read-only file system" in log_of(folder)
        assert not (folder / "data" / "new").exists()
        assert (folder / "out" / "field").read_text() == "x\n"

    def test_root_has_no_rights(self, shell: MakeRun, folder: Path) -> None:
        execute(shell("grep -E '^(Cap|NoNewPrivs)' /proc/self/status; chown 1 /l2r/submission"))
        status = dict(line.split(":\t") for line in log_of(folder).splitlines() if ":\t" in line)
        assert {int(value, 16) for name, value in status.items() if name != "CapInh"} == {0, 1}
        assert status["NoNewPrivs"] == "1"
        assert "Operation not permitted" in log_of(folder)

    def test_no_core_dumps(self, shell: MakeRun, folder: Path) -> None:
        execute(shell("ulimit -c; ulimit -H -c"))
        assert log_of(folder).split() == ["0", "0"]


class TestNothingIsLeft:
    def test_after_a_run(self, shell: MakeRun, folder: Path, client: DockerClient) -> None:
        execute(shell("true"))
        assert containers_of(client, folder) == []

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_after_an_error_in_the_with_body(
        self, shell: MakeRun, folder: Path, client: DockerClient, error: type[BaseException]
    ) -> None:
        with pytest.raises(error):
            self._fail_in_the_body(shell("sleep 60"), error)
        assert containers_of(client, folder) == []

    def _fail_in_the_body(self, execution: ContainerExecution, error: type[BaseException]) -> None:
        with execution:
            execution.start()
            raise error

    def test_after_a_creation_that_the_engine_refused(
        self, shell: MakeRun, folder: Path, client: DockerClient
    ) -> None:
        start_s = time.monotonic()
        with pytest.raises(EngineError, match=r"(?i)creating the container of .*memory"):
            execute(shell("true", memory_bytes=1 << 20))  # less than any container may have
        assert time.monotonic() - start_s < 3, "a refusal leaves nothing to wait for"
        assert containers_of(client, folder) == []

    def test_after_a_start_that_failed(
        self, tag: str, engine: DockerEngine, client: DockerClient, base: str, folder: Path
    ) -> None:
        """An image with a file where the data folder has to be mounted."""
        (folder / "Dockerfile").write_text(f"FROM {base}\nRUN mkdir /l2r; touch /l2r/test\n")
        image = engine.build(folder, tag=tag)
        assert execute(engine.prepare(shell_spec(image, folder, ""))).exit_code == 127
        assert "/l2r/test" in log_of(folder)
        assert containers_of(client, folder) == []

    @pytest.mark.parametrize("delay_s", [0.0, 0.005, 0.02, 0.1, 0.2, 0.5])
    def test_after_ctrl_c_at_any_time(
        self, shell_image: Image, folder: Path, client: DockerClient, delay_s: float
    ) -> None:
        with harness_process(shell_image, folder) as harness:
            assert harness.stdout is not None
            harness.stdout.readline()  # it is about to create its container
            time.sleep(delay_s)
            harness.send_signal(signal.SIGINT)
            harness.wait(30)
        assert containers_of(client, folder) == []


HARNESS = """
import sys, time
from pathlib import Path
sys.path.insert(0, {repository!r})
from harness.engine.base import Image
from harness.engine.docker import DockerEngine
from tests.docker.conftest import shell_spec
engine = DockerEngine.connect()
spec = shell_spec(Image(id={image!r}, reference="shell"), Path({folder!r}), "echo up; sleep 60")
print("ready", flush=True)
with engine.prepare(spec) as execution:
    execution.start()
    execution.wait(60)
"""


def harness_process(image: Image, folder: Path) -> subprocess.Popen[str]:
    """Another process that executes a run of a minute through the engine."""
    code = HARNESS.format(repository=str(REPOSITORY), image=image.id, folder=str(folder))
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


class TestSweep:
    def test_only_what_the_dead_left(
        self,
        engine: DockerEngine,
        shell: MakeRun,
        shell_image: Image,
        folder: Path,
        client: DockerClient,
    ) -> None:
        with harness_process(shell_image, folder) as harness:
            wait_for_log(folder, "up")
            [living] = containers_of(client, folder)
            assert living not in engine.sweep(), "its harness still runs"
            harness.kill()
        assert containers_of(client, folder) == [living], "kill -9 leaves it behind"
        with shell("sleep 60") as mine:
            mine.start()
            assert engine.sweep() == (living,)
            assert containers_of(client, folder) == [mine.container_name]

    def test_other_peoples_containers_are_not_ours(
        self, engine: DockerEngine, client: DockerClient, shell_image: Image
    ) -> None:
        other = client.containers.create(shell_image.id, "true")
        try:
            assert engine.sweep() == ()
            other.reload()
        finally:
            other.remove()


class TestImages:
    def test_find(self, engine: DockerEngine, shell_image: Image) -> None:
        assert engine.find(shell_image.reference) == shell_image
        assert shell_image.id.startswith("sha256:")

    @pytest.mark.parametrize(
        ("reference", "remedy"),
        [
            ("l2r-nobody-has-this:1", "make build"),
            ("Not A Reference!", "a name has small letters"),
            ("", "make build"),
        ],
    )
    def test_find_nothing(self, engine: DockerEngine, reference: str, remedy: str) -> None:
        with pytest.raises(ImageMissing, match=remedy):
            engine.find(reference)

    def test_build_output_comes_line_by_line(
        self, tag: str, engine: DockerEngine, base: str, tmp_path: Path
    ) -> None:
        (tmp_path / "Dockerfile").write_text(f"FROM {base}\nRUN echo one; echo two >&2\n")
        lines: list[str] = []
        engine.build(tmp_path, tag=tag, on_output=lines.append)
        assert "one" in lines or any("Using cache" in line for line in lines)
        assert not [line for line in lines if "\n" in line or "\x1b" in line]

    def test_dockerignore_is_honoured(
        self, tag: str, engine: DockerEngine, base: str, tmp_path: Path
    ) -> None:
        (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY . /in/\nRUN test ! -e /in/big\n")
        (tmp_path / ".dockerignore").write_text("big\n")
        (tmp_path / "big").write_text("data")
        engine.build(tmp_path, tag=tag)

    def test_a_build_that_fails_is_the_teams(
        self, tag: str, engine: DockerEngine, base: str, tmp_path: Path
    ) -> None:
        (tmp_path / "Dockerfile").write_text(
            f"FROM {base}\nRUN echo ERROR: No matching distribution found for torhc; exit 7\n"
        )
        with pytest.raises(BuildError) as failure:
            engine.build(tmp_path, tag=tag)
        assert "RUN echo" in str(failure.value)
        assert "exit 7" in str(failure.value)
        assert "No matching distribution found for torhc" in str(failure.value)

    @pytest.mark.parametrize("content", ["NONSENSE\n", "RUN true\n", ""])
    def test_a_dockerfile_that_is_none(
        self, tag: str, engine: DockerEngine, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / "Dockerfile").write_text(content)
        with pytest.raises(BuildError, match="Dockerfile"):
            engine.build(tmp_path, tag=tag)

    def test_no_dockerfile(self, tag: str, engine: DockerEngine, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="expected a Dockerfile"):
            engine.build(tmp_path, tag=tag)


class TestBaseImage:
    def test_a_given_base_that_cannot_be_had(
        self, tag: str, engine: DockerEngine, tmp_path: Path
    ) -> None:
        (tmp_path / "Dockerfile").write_text("ARG BASE_IMAGE=debian\nFROM ${BASE_IMAGE}\n")
        with pytest.raises(BaseImageUnavailable) as failure:
            engine.build(tmp_path, tag=tag, base_image=NOWHERE)
        message = str(failure.value)
        assert NOWHERE in message
        assert "no such host" in message or "lookup" in message, "the engine's own reason"
        assert "make build BASE_IMAGE=" in message
        assert "make base-image" in message

    def test_a_base_without_the_argument(
        self, tag: str, engine: DockerEngine, tmp_path: Path
    ) -> None:
        (tmp_path / "Dockerfile").write_text(f"FROM {NOWHERE}\n")
        with pytest.raises(BaseImageUnavailable, match="ARG BASE_IMAGE="):
            engine.build(tmp_path, tag=tag)

    def test_the_offline_base_stands_in(
        self, tag: str, engine: DockerEngine, tmp_path: Path
    ) -> None:
        try:
            engine.find("l2r-base:latest")
        except ImageMissing:
            pytest.skip("no l2r-base here: run `make base-image`")
        (tmp_path / "Dockerfile").write_text(f"ARG BASE_IMAGE={NOWHERE}\nFROM $BASE_IMAGE AS a\n")
        lines: list[str] = []
        engine.build(tmp_path, tag=tag, on_output=lines.append)
        assert any(NOWHERE in line and "not on this machine" in line for line in lines)
        assert any("l2r-base:latest instead" in line for line in lines)


CONNECT = """
import os, sys
sys.path.insert(0, {repository!r})
from harness.engine.docker import DockerEngine
from harness.errors import EngineError
if {uid}: os.setgroups([]); os.setuid({uid})
try:
    DockerEngine.connect()
except EngineError as error:
    print(type(error).__name__, error)
"""


@as_root
class TestConnecting:
    def connect(self, *before: str, uid: int = 0) -> str:
        code = CONNECT.format(repository=str(REPOSITORY), uid=uid)
        command = [*before, sys.executable, "-W", "ignore", "-c", code]
        environment = {k: v for k, v in os.environ.items() if k != "DOCKER_HOST"}
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        ).stdout

    def test_a_user_who_may_not(self) -> None:
        found = self.connect(uid=65534)
        assert found.startswith("EngineUnreachable")
        assert "usermod" in found

    def test_a_machine_without_a_daemon(self) -> None:
        """The same machine, seen from a mount namespace in which /run is empty."""
        if shutil.which("unshare") is None:
            pytest.skip("needs unshare")
        hidden = 'mount -t tmpfs none /run && exec "$0" "$@"'
        found = self.connect("unshare", "--mount", "sh", "-c", hidden)
        assert found.startswith("EngineMissing")
        assert "isolation" in found


def test_the_sdk_sees_nothing_of_ours_left(client: DockerClient, engine: DockerEngine) -> None:
    """Runs last: no container of this file survived it."""
    left = client.containers.list(all=True, filters={"label": RUN_LABEL})
    mine = [c for c in left if str(c.labels.get(RUN_LABEL)).startswith("test-test_")]
    for container in mine:
        try:
            container.remove(force=True)
        except docker.errors.APIError:
            continue
    assert mine == []


def test_image_that_names_no_program(engine: DockerEngine, base: str, folder: Path) -> None:
    """It is the team's to mend, and was once blamed on the machine."""
    (folder / "Dockerfile").write_text(f"FROM {base}\nENTRYPOINT []\nCMD []\n")
    image = engine.build(folder, tag=f"l2r-harness-test-idle-{os.getpid()}")
    try:
        spec = dataclasses.replace(shell_spec(image, folder, ""), arguments=())
        with pytest.raises(BuildError, match="neither ENTRYPOINT nor CMD"):
            engine.prepare(spec)
    finally:
        engine._client.images.remove(image.id, force=True)
