"""What a submission sees, may and uses, looked at from inside its container."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.engine.arguments import RUN_LABEL
from harness.engine.base import ExitState, Isolation
from harness.engine.docker import DockerEngine
from harness.engine.owner import OWNER_LABEL, Owner
from harness.errors import BuildError, EngineError, ImageMissing, OptionError
from tests.conftest import lacks
from tests.docker.conftest import MIB, shell_spec
from tests.docker.test_docker_engine import as_root, execute, log_of, wait_for_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from docker import DockerClient

    from harness.engine.base import Image
    from harness.engine.container import ContainerExecution
    from tests.docker.conftest import MakeRun

    Build = Callable[..., Image]

pytestmark = pytest.mark.docker

GREEDY = "python3 -c 'x = bytearray(300 << 20)'"

HOLDS_INIT = """
import ctypes, os, time
PTRACE_ATTACH = 16
libc = ctypes.CDLL(None, use_errno=True)
refused = libc.ptrace(PTRACE_ATTACH, 1, None, None)
print("refused" if refused else "held", ctypes.get_errno(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def build(engine: DockerEngine, base: str, tag: str, folder: Path) -> Build:
    """``build(line, ...)``: an image of the base with these lines, whose argument is a script."""

    def make(*lines: str) -> Image:
        text = "\n".join([f"FROM {base}", *lines, 'ENTRYPOINT ["sh", "-c"]', ""])
        (folder / "Dockerfile").write_text(text)
        return engine.build(folder, tag=tag)

    return make


def see(execution: ContainerExecution, folder: Path) -> str:
    """What a script prints; it must succeed."""
    state = execute(execution)
    assert state == ExitState(exit_code=0, out_of_memory=False), log_of(folder)
    return log_of(folder)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to be"
        time.sleep(0.05)


class TestFromInside:
    def test_rights(self, shell: MakeRun, folder: Path) -> None:
        status = dict(
            line.split(":\t") for line in see(shell("cat /proc/self/status"), folder).splitlines()
        )
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2", "the engine's own profile filters system calls"

    def test_mounts_are_the_folders_given_and_nothing_else_of_the_host(
        self, shell: MakeRun, folder: Path
    ) -> None:
        ours, plain = {}, set()
        for line in see(shell("cat /proc/self/mountinfo"), folder).splitlines():
            fields, _, rest = line.partition(" - ")
            root, target, options = fields.split()[3:6]
            kind = rest.split()[0]
            if kind in {"ext4", "xfs", "btrfs", "zfs"}:  # of a disk
                ours[target] = (root, options.split(",")[0])
            else:
                plain.add(target)
        init = ours.pop("/sbin/docker-init", None) or ours.pop("/usr/sbin/docker-init")
        assert init[1] == "ro"
        for name in ("resolv.conf", "hostname", "hosts"):  # the engine's, of this container alone
            ours.pop(f"/etc/{name}")
        assert {target: access for target, (_, access) in ours.items()} == {
            "/l2r/test": "ro",
            "/l2r/submission": "rw",
        }
        assert {"/tmp", "/dev/shm"} <= plain

    def test_nothing_of_the_host_is_to_be_found(self, shell: MakeRun, folder: Path) -> None:
        script = (
            "for f in /var/run/docker.sock /run/docker.sock /run/containerd /truth /host; do "
            "test ! -e $f || echo found $f; done; "
            "find / -xdev -name '*.sock' 2>/dev/null; echo end"
        )
        assert see(shell(script), folder) == "end\n"

    def test_environment_holds_nothing_of_the_host(
        self, shell: MakeRun, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "of-the-host")
        names = {line.split("=")[0] for line in see(shell("env"), folder).splitlines()}
        assert names - {"PATH", "HOME", "HOSTNAME", "PWD", "LANG", "SHLVL", "_"} == {
            *(
                name for name in names if name.startswith(("PYTHON", "GPG_KEY", "PIP"))
            ),  # the base's own
            "NVIDIA_VISIBLE_DEVICES",
        }

    def test_host_name_tells_nothing(self, shell: MakeRun, folder: Path) -> None:
        assert see(shell("hostname"), folder) == "submission\n"

    def test_an_init_that_is_held_by_the_submission_is_ended_all_the_same(
        self, shell: MakeRun, folder: Path
    ) -> None:
        """It may be traced, as it belongs to the same user; then SIGTERM does nothing."""
        (folder / "data" / "p.py").write_text(HOLDS_INIT)
        with shell("exec python3 /l2r/test/p.py") as execution:
            execution.start()
            wait_for_log(folder, "\n")
            if "held" not in log_of(folder):
                pytest.skip(f"this kernel does not allow it: {log_of(folder)}")
            assert execution.stop(1.0) == ExitState(exit_code=137, out_of_memory=False)

    def test_kernel_settings_are_read_only(self, shell: MakeRun, folder: Path) -> None:
        state = execute(
            shell("echo 1 > /proc/sys/vm/drop_caches || echo x > /sys/kernel/profiling")
        )
        assert state.exit_code != 0
        assert log_of(folder).count("Read-only file system") == 2

    def test_limits(self, shell: MakeRun, folder: Path) -> None:
        given = {"output_bytes": 8 * MIB, "scratch_bytes": 16 * MIB, "open_files": 512}
        script = "ulimit -Hn; ulimit -Sn; ulimit -Hf; ulimit -Hc; cat /proc/1/oom_score_adj"
        # dash counts files in blocks of 512 bytes.
        expected = ["512", "512", str(16 * MIB // 512), "0", "500"]
        assert see(shell(script, **given), folder).split() == expected
        raised = execute(shell("ulimit -n 1024", **given))
        assert raised.exit_code != 0
        assert "not permitted" in log_of(folder)

    def test_a_file_longer_than_all_it_may_write(self, shell: MakeRun, folder: Path) -> None:
        script = "head -c 3000000 /dev/zero > /l2r/submission/f"
        state = execute(shell(script, output_bytes=MIB, scratch_bytes=MIB))
        assert state.exit_code != 0
        assert (folder / "out" / "f").stat().st_size == MIB

    def test_more_open_files_than_the_engine_may_grant(self, shell: MakeRun, folder: Path) -> None:
        """Then the engine's own limit holds, which is lower."""
        assert int(see(shell("ulimit -Hn", open_files=1_000_000), folder)) <= 1_000_000

    def test_memory_swap_and_processes(self, shell: MakeRun, folder: Path) -> None:
        script = (
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; "
            "cat memory/memory.memsw.limit_in_bytes 2>/dev/null || echo none; "
            "cat pids/pids.max pids.max 2>/dev/null; cat memory.swap.max 2>/dev/null || echo 0"
        )
        limit, swap, processes, of_v2 = see(
            shell(script, memory_bytes=96 * MIB, processes=77), folder
        ).split()
        assert int(limit) == 96 * MIB
        assert swap in {limit, "none"}, "of memory and swap together"
        assert (processes, of_v2) == ("77", "0")

    def test_temporary_folder(self, shell: MakeRun, folder: Path) -> None:
        """Of the size given, for anybody, and programs run from it: compiled kernels are such."""
        script = (
            "stat -c %a /tmp; df -k /tmp | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; "
            "cp /bin/echo /tmp/e; /tmp/e runs; mknod /tmp/n c 1 3 2>/dev/null || echo no device; "
            "head -c 20000000 /dev/zero > /tmp/big || echo full"
        )
        found = see(shell(script, temporary_bytes=16 * MIB), folder)
        assert found.splitlines()[:4] == ["1777", str(16 * 1024), "runs", "no device"]
        assert found.endswith("full\n")

    def test_read_only_root(self, engine: DockerEngine, shell_image: Image, folder: Path) -> None:
        script = "touch /l2r/submission/x /tmp/x && ! touch /root/x /var/x /x"
        spec = dataclasses.replace(
            shell_spec(shell_image, folder, script), isolation=Isolation(read_only_root=True)
        )
        assert see(engine.prepare(spec), folder).count("Read-only file system") == 3

    @pytest.mark.parametrize("read_only_root", [False, True])
    def test_of_a_folder_in_part_nothing_else_is_seen_and_nothing_can_be_made(
        self, engine: DockerEngine, shell_image: Image, folder: Path, read_only_root: bool
    ) -> None:
        (folder / "data/answers").mkdir()
        (folder / "data/task").mkdir()
        (folder / "data/task/image").write_text("image\n")
        script = (
            "exec 2>&1; ls -A /l2r/test; cat /l2r/test/task/image; "
            "grep -c answers /proc/self/mountinfo; "
            "cd /l2r/test; ! touch new task/new && ! mkdir folder && ! rm -r pairs_val.csv && "
            "! chmod 777 . && ! mount -o remount,rw /l2r/test 2>/dev/null"
        )
        given = shell_spec(shell_image, folder, script)
        data, output = given.mounts
        in_part = dataclasses.replace(data, only=("pairs_val.csv", "task"))
        spec = dataclasses.replace(
            given, mounts=(in_part, output), isolation=Isolation(read_only_root=read_only_root)
        )
        seen = see(engine.prepare(spec), folder)
        assert seen.startswith("pairs_val.csv\ntask\nimage\n0\n")
        assert seen.count("Read-only file system") >= 4
        assert sorted(path.name for path in (folder / "data").iterdir()) == [
            *("answers", "pairs_val.csv", "task"),
        ]

    def test_runtime_that_is_not_there(
        self, engine: DockerEngine, shell_image: Image, folder: Path
    ) -> None:
        spec = dataclasses.replace(
            shell_spec(shell_image, folder, "true"), isolation=Isolation(runtime="runsc-nowhere")
        )
        with pytest.raises(OptionError, match=r"runsc-nowhere.*runc"):
            engine.prepare(spec)

    def test_runtime_that_is_there(
        self, engine: DockerEngine, shell_image: Image, folder: Path
    ) -> None:
        spec = dataclasses.replace(
            shell_spec(shell_image, folder, "echo ran"), isolation=Isolation(runtime="runc")
        )
        assert see(engine.prepare(spec), folder) == "ran\n"

    @as_root
    def test_what_is_mounted_below_a_folder_does_not_appear(
        self, shell: MakeRun, folder: Path
    ) -> None:
        """It would be writable in a folder that is mounted read-only."""
        below = folder / "data" / "below"
        below.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", below], check=True)
        try:
            (below / "of-the-host").touch()
            state = execute(shell("ls /l2r/test/below; touch /l2r/test/below/new"))
        finally:
            subprocess.run(["umount", below], check=True)
        assert state.exit_code != 0
        assert "of-the-host" not in log_of(folder)
        assert "Read-only file system" in log_of(folder)

    def test_root_needs_no_capability_for_its_output(self, shell: MakeRun, folder: Path) -> None:
        """All that is needed is allowed; giving files away is what is not."""
        script = (
            "set -e; cd /l2r/submission; mkdir task_01; echo a > task_01/part; chmod 600 "
            "task_01/part; mv task_01/part task_01/disp.npz; ln task_01/disp.npz link; "
            "echo b >> link; touch -d 2020-01-01 link; rm link; mkdir gone; rmdir gone; "
            "chmod 700 task_01; cat task_01/disp.npz; ! chown 1000 task_01"
        )
        assert see(shell(script), folder) == (
            "a\nb\nchown: changing ownership of 'task_01': Operation not permitted\n"
        )


class TestImagesThatAskForMore:
    def test_environment_labels_and_health(
        self, build: Build, engine: DockerEngine, client: DockerClient, folder: Path
    ) -> None:
        image = build(
            "ENV LD_PRELOAD=/nowhere.so DOCKER_HOST=tcp://127.0.0.1:1 NVIDIA_VISIBLE_DEVICES=all",
            f'LABEL {OWNER_LABEL}="nobody" {RUN_LABEL}="another" com.example=1',
            "STOPSIGNAL SIGUSR1",
            "HEALTHCHECK --interval=1s CMD touch /l2r/submission/health",
            "EXPOSE 80",
        )
        script = "echo $NVIDIA_VISIBLE_DEVICES; trap 'exit 9' TERM; echo up; sleep 60 & wait"
        with engine.prepare(shell_spec(image, folder, script)) as execution:
            execution.start()
            wait_for_log(folder, "up")
            container = client.containers.get(execution.container_name)
            assert container.labels[OWNER_LABEL] == Owner.current().text
            assert container.labels[RUN_LABEL] == f"test-{folder.name}"
            assert container.attrs["NetworkSettings"]["Ports"] == {}
            time.sleep(1.5)
            assert execution.stop(10).exit_code == 9
        assert "void" in log_of(folder)
        assert not (folder / "out" / "health").exists()

    def test_labels_of_ours_on_a_container_of_somebody_else(
        self, build: Build, engine: DockerEngine, client: DockerClient
    ) -> None:
        """Whoever runs such an image gets its labels with it, and keeps the container."""
        dead = dataclasses.replace(Owner.current(), start="1").text
        image = build(f"LABEL {OWNER_LABEL}={json.dumps(dead)} {RUN_LABEL}=x")
        other = client.containers.create(image.id, "true")
        try:
            assert Owner.from_text(other.labels[OWNER_LABEL]) is not None
            assert engine.sweep() == ()
            other.reload()
        finally:
            other.remove()

    def test_a_volume_does_not_come_before_a_folder_in_part(
        self, build: Build, engine: DockerEngine, client: DockerClient, folder: Path
    ) -> None:
        image = build("RUN mkdir -p /l2r/test && echo > /l2r/test/own", "VOLUME /l2r/test")
        given = shell_spec(image, folder, "ls /l2r/test; ! touch /l2r/test/new 2>/dev/null")
        data, output = given.mounts
        in_part = dataclasses.replace(data, only=("pairs_val.csv",))
        before = {found.id for found in client.volumes.list()}
        spec = dataclasses.replace(given, mounts=(in_part, output))
        assert see(engine.prepare(spec), folder) == "pairs_val.csv\n"
        assert not {found.id for found in client.volumes.list()} - before, "a volume is left"

    @pytest.mark.parametrize("volume", ["/l2r", "/l2r/submission", "/tmp", "/weights"])
    def test_a_volume_does_not_come_before_our_mounts(
        self, build: Build, engine: DockerEngine, client: DockerClient, folder: Path, volume: str
    ) -> None:
        image = build("RUN mkdir /weights && echo heavy > /weights/w", f"VOLUME {volume}")
        script = (
            "cat /weights/w; cat /l2r/test/pairs_val.csv; echo x > /l2r/submission/x; "
            "grep -c ' /tmp .* tmpfs ' /proc/self/mountinfo"
        )
        before = {found.id for found in client.volumes.list()}
        found = see(engine.prepare(shell_spec(image, folder, script)), folder)
        assert found == "heavy\nfixed,moving\n1\n"
        assert (folder / "out" / "x").read_text() == "x\n"
        assert not {found.id for found in client.volumes.list()} - before, "a volume is left"

    @pytest.mark.parametrize(
        "line",
        [
            "VOLUME /l2r/submission/task_01",
            "VOLUME /l2r/x/../test/task_01",
            "VOLUME /dev/shm",
            "VOLUME /proc",
            "WORKDIR /proc/self/fd/8",
        ],
    )
    def test_what_would_get_around_the_limits_is_refused(
        self, build: Build, engine: DockerEngine, folder: Path, line: str
    ) -> None:
        with pytest.raises(BuildError, match=line.split(maxsplit=1)[0]):
            engine.prepare(shell_spec(build(line), folder, "true"))

    @pytest.mark.parametrize(
        ("lines", "word"),
        [
            (["RUN ln -s /proc/self/fd/8 /w", "WORKDIR /w"], "'/proc/self/fd/8'"),
            (["RUN ln -s /proc /p", "WORKDIR /p/self/fd/8"], "'/proc/self/fd/8'"),
            (["RUN ln -s /dev/../proc /p && ln -s p/1 /q", "WORKDIR /q/x/.."], "'/proc/1'"),
            (["RUN ln -s /l2r/submission /x", "VOLUME /x/task_01"], "'/l2r/submission/task_01'"),
            (["RUN ln -s /l2r /x", "VOLUME /x/y/z/../../test/a"], "read-only"),
            (["RUN mkdir -p /a/b/c && ln -s /l2r /a/b/c/d", "VOLUME /a/b/c/d"], "'/l2r'"),
            (
                ["RUN mkdir /l2r /x && ln -s /x /l2r/submission", "VOLUME /x/task_01"],
                "'/x/task_01'",
            ),
            (["RUN ln -s /dev /x", "VOLUME /x/shm"], "'/dev/shm'"),
        ],
    )
    def test_links_that_lead_around_the_limits_are_refused(
        self, build: Build, engine: DockerEngine, folder: Path, lines: list[str], word: str
    ) -> None:
        """Names alone were looked at; a link in the image went around both."""
        spec = shell_spec(build(*lines), folder, "true")
        with pytest.raises(BuildError, match=word), engine.prepare(spec):
            pass

    def test_links_that_lead_elsewhere_are_followed(
        self, build: Build, engine: DockerEngine, folder: Path
    ) -> None:
        image = build(
            "RUN mkdir -p /opt/code /big && ln -s /opt/code /w && ln -s /big /v",
            "WORKDIR /w",
            "VOLUME /v/a",
        )
        assert see(engine.prepare(shell_spec(image, folder, "pwd -P")), folder) == "/opt/code\n"

    @pytest.mark.parametrize(
        ("lines", "code", "word"),
        [
            (["USER nobody-of-this-name"], 126, "nobody-of-this-name"),
            (["WORKDIR /l2r/test/new"], 126, "read-only file system"),
            (["RUN mkdir /l2r && touch /l2r/submission"], 127, "/l2r/submission"),
        ],
    )
    def test_an_image_that_cannot_be_started(
        self,
        build: Build,
        engine: DockerEngine,
        folder: Path,
        lines: list[str],
        code: int,
        word: str,
    ) -> None:
        state = execute(engine.prepare(shell_spec(build(*lines), folder, "true")))
        assert state == ExitState(exit_code=code, out_of_memory=False)
        assert word in log_of(folder)

    @pytest.mark.parametrize(
        "lines",
        [
            ["RUN ln -s /proc /l2r"],
            ["RUN ln -s /sys /l2r"],
            ["RUN ln -s /sys/kernel /x && ln -s /x /l2r"],
            ["RUN ln -s /dev/null /l2r"],
            ["RUN rm -rf /tmp && ln -s /proc/self/fd /tmp"],
        ],
    )
    def test_links_where_the_engine_mounts_are_the_images_fault(
        self,
        build: Build,
        engine: DockerEngine,
        client: DockerClient,
        folder: Path,
        lines: list[str],
    ) -> None:
        """Each was a failure of the engine, so the machine's, by a line in a Dockerfile."""
        image, _ = build(*lines), engine.own_image()
        state = execute(engine.prepare(shell_spec(image, folder, "true")))
        assert state is not None
        assert state.exit_code in {126, 127}
        assert "could not be started" in log_of(folder)
        left = client.containers.list(all=True, filters={"name": "second-start"})
        assert [found for found in left if found.labels[RUN_LABEL] == f"test-{folder.name}"] == []

    @pytest.mark.parametrize(
        ("program", "code"), [("/etc/passwd", 126), ("/l2r", 126), ("/nowhere", 127)]
    )
    def test_a_program_that_is_none(
        self, engine: DockerEngine, base: str, tag: str, folder: Path, program: str, code: int
    ) -> None:
        (folder / "Dockerfile").write_text(f"FROM {base}\nENTRYPOINT {json.dumps([program])}\n")
        image = engine.build(folder, tag=tag)
        state = execute(engine.prepare(shell_spec(image, folder, "")))
        assert state == ExitState(exit_code=code, out_of_memory=False)
        assert program in log_of(folder)

    def test_a_program_for_another_kind_of_processor(
        self, engine: DockerEngine, tag: str, folder: Path
    ) -> None:
        """Its header says ARM, 64 bits (elf(5): e_machine 183)."""
        header = bytearray(Path("/bin/true").read_bytes()[:4096])
        header[18:20] = (183).to_bytes(2, "little")
        (folder / "other").write_bytes(header)
        (folder / "other").chmod(0o755)
        (folder / "Dockerfile").write_text('FROM scratch\nCOPY other /\nENTRYPOINT ["/other"]\n')
        image = engine.build(folder, tag=tag)
        state = execute(engine.prepare(shell_spec(image, folder, "")))
        assert state.exit_code in {126, 127}
        assert "/other" in log_of(folder)


class TestUsage:
    def test_what_it_used_is_still_known_when_it_has_ended(self, shell: MakeRun) -> None:
        script = f"{GREEDY}; python3 -c 'while True: pass'"
        execution = shell(script, memory_bytes=64 * MIB, processes=32)
        with execution:
            execution.start()
            state = execution.wait(1.0)
            while state is None and (execution.usage().cpu_s or 0) < 0.2:
                state = execution.wait(0.1)
            assert execution.stop(0).exit_code in {137, 143}
            used = execution.usage()
        assert used.cpu_s is not None
        assert used.cpu_s >= 0.2
        assert used.memory_peak_bytes is not None
        assert 32 * MIB < used.memory_peak_bytes <= 64 * MIB
        assert used.memory_kills == 1
        assert used.memory_limit_hits is not None  # Linux 6.18 leaves it at zero
        assert used.memory_peak_bytes > 0.8 * 64 * MIB, "else the machine would be blamed"

    def test_open_files(self, shell: MakeRun, folder: Path) -> None:
        """Whether the engine may raise the limit or not, it is what the submission sees."""
        with shell("ulimit -n; echo up; sleep 30") as execution:
            execution.start()
            wait_for_log(folder, "up")
            assert execution.usage().open_files == int(log_of(folder).split()[0])

    def test_refused_processes(self, shell: MakeRun) -> None:
        """The shell that is refused one ends; what became a sleep without forking stays."""
        script = "(for i in 1 2 3 4 5 6; do sleep 30 & done) & exec sleep 30"
        with shell(script, processes=4) as execution:
            execution.start()
            wait_until(lambda: bool(execution.usage().refused_processes))

    def test_a_look_is_cheap(self, shell: MakeRun, folder: Path) -> None:
        with shell("echo up; sleep 30") as execution:
            execution.start()
            wait_for_log(folder, "up")
            before_s = time.process_time()
            for _ in range(200):
                execution.usage()
            assert (time.process_time() - before_s) / 200 < 0.002  # measured: 0.0002


DELETED = """
import os, sys, time
folder, how = sys.argv[1:]
path = folder + "/gone"
f = os.open(path, os.O_RDWR | os.O_CREAT)
os.unlink(path)
os.write(f, bytes(4 << 20))
if how == "mapped":
    import mmap
    kept = mmap.mmap(f, 4 << 20)
    os.close(f)
print("up", flush=True)
time.sleep(60)
"""


@as_root
class TestScratch:
    def test_of_nothing_written(self, shell: MakeRun, folder: Path) -> None:
        with shell("echo up; sleep 60") as execution:
            assert execution.scratch() is None
            execution.start()
            wait_for_log(folder, "up")
            use = execution.scratch()
            assert use is not None
            assert use.used_bytes < 256 * 1024
        assert execution.scratch() is None, "it is removed"

    def test_of_one_that_has_ended_until_it_is_removed(self, shell: MakeRun) -> None:
        """What it wrote in its last second counts, too."""
        with shell("head -c 8M /dev/zero > /var/tmp/last") as execution:
            execution.start()
            assert execution.wait(10.0) is not None
            use = execution.scratch()
            assert use is not None
            assert 8 * MIB <= use.used_bytes < 9 * MIB
            assert use.deleted_bytes == 0
        assert execution.scratch() is None

    def test_of_files_in_its_layer_once_each(self, shell: MakeRun, folder: Path) -> None:
        script = (
            "head -c 3145728 /dev/zero > /root/a; ln /root/a /root/b; ln -s / /root/all; "
            "head -c 9000000 /dev/zero > /l2r/submission/no; "
            "head -c 9000000 /dev/zero > /tmp/no; echo up; sleep 60"
        )
        with shell(script) as execution:
            execution.start()
            wait_for_log(folder, "up")
            use = execution.scratch()
        assert use is not None
        assert 3 * MIB <= use.used_bytes < 4 * MIB
        assert use.deleted_bytes == 0

    @pytest.mark.parametrize("file", ["hosts", "hostname", "resolv.conf"])
    def test_of_what_the_engine_mounts(self, shell: MakeRun, folder: Path, file: str) -> None:
        """They lie on the machine's disk, and root may write them."""
        with shell(f"head -c 3145728 /dev/zero > /etc/{file}; echo up; sleep 60") as execution:
            execution.start()
            wait_for_log(folder, "up")
            use = execution.scratch()
        assert use is not None
        assert 3 * MIB <= use.used_bytes < 4 * MIB

    def test_of_its_volumes(self, build: Build, engine: DockerEngine, folder: Path) -> None:
        script = "head -c 3145728 /dev/zero > /v/a; echo up; sleep 60"
        image = build("VOLUME /v")
        with engine.prepare(shell_spec(image, folder, script)) as execution:
            execution.start()
            wait_for_log(folder, "up")
            use = execution.scratch()
        assert use is not None
        assert 3 * MIB <= use.used_bytes < 4 * MIB

    @pytest.mark.parametrize("how", ["open", "mapped"])
    @pytest.mark.parametrize(
        ("place", "expected"), [("/l2r/submission", 4), ("/root", 4), ("/tmp", 0), ("/dev/shm", 0)]
    )
    def test_of_deleted_files(
        self, shell: MakeRun, folder: Path, place: str, how: str, expected: int
    ) -> None:
        """Those in memory are the limit of memory's."""
        (folder / "data" / "p.py").write_text(DELETED)
        with shell(f"python3 /l2r/test/p.py {place} {how}") as execution:
            execution.start()
            wait_for_log(folder, "up")
            use = execution.scratch()
        assert use is not None
        assert use.deleted_bytes is not None
        assert use.deleted_bytes == pytest.approx(expected * MIB, abs=64 * 1024)
        assert use.used_bytes - use.deleted_bytes < 256 * 1024

    def test_of_shared_memory_without_a_name(self, shell: MakeRun, folder: Path) -> None:
        code = "import os, time; f = os.memfd_create(chr(120)); os.write(f, bytes(4 << 20)); "
        with shell(f'python3 -c "{code}print(1, flush=True); time.sleep(60)"') as execution:
            execution.start()
            wait_for_log(folder, "1")
            use = execution.scratch()
        assert use is not None
        assert use.deleted_bytes == 0

    def test_many_small_files_count_though_they_are_empty(
        self, shell: MakeRun, folder: Path
    ) -> None:
        script = "mkdir /root/m; cd /root/m; seq 3000 | xargs touch; echo up; sleep 60"
        with shell(script) as execution:
            execution.start()
            wait_for_log(folder, "up")
            use = execution.scratch()
        assert use is not None
        assert use.used_bytes >= 3000 * 4096


LITTER = (
    "cd /l2r/submission; mkdir -p closed/in; echo a > closed/in/f; ln -s /etc/passwd closed/link; "
    "cp /bin/true closed/s; chmod 4755 closed/s; mkfifo closed/p; "
    "chmod 000 closed/in/f; chmod 0 closed/in; chmod 0 closed"
)


def as_user(user: int, group: int, report: Callable[[], str]) -> str:
    """What the function says when this process's user has no rights but the group's."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.setgroups([group])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            os.write(writer, report().encode())
        except BaseException as error:
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        return pipe.read()


@as_root
class TestHandingOver:
    def test_to_root(self, shell: MakeRun, engine: DockerEngine, folder: Path) -> None:
        """By itself: no image is asked for."""
        passwd = Path("/etc/passwd").stat()
        see(shell(f"{LITTER}; chmod 777 /l2r/submission"), folder)

        def no_image() -> Image:
            pytest.fail("root needs none")

        engine.hand_over(folder / "out", no_image)
        made = (folder / "out" / "closed" / "s").stat()
        assert not made.st_mode & 0o6000, "a program that runs with root's rights is left"
        assert (folder / "out" / "closed" / "in" / "f").stat().st_mode & 0o700 == 0o600
        after = Path("/etc/passwd").stat()
        assert (after.st_mode, after.st_uid) == (passwd.st_mode, passwd.st_uid)

    def test_to_a_user_without_rights(
        self, shell: MakeRun, shell_image: Image, folder: Path
    ) -> None:
        user = 64321  # nobody's
        socket = Path("/var/run/docker.sock").stat()
        if not (socket.st_mode & 0o020 and socket.st_gid):
            lacks("no group may speak to the engine here")
        see(shell(LITTER), folder)

        def report() -> str:
            shutil.rmtree(mine / "out" / "closed", ignore_errors=True)
            said = ["stays" if (mine / "out" / "closed").exists() else "gone"]
            engine = DockerEngine.connect()
            engine.hand_over(mine / "out", lambda: shell_image)
            engine.close()
            said.append((mine / "out" / "closed" / "in" / "f").read_text())
            shutil.rmtree(mine / "out" / "closed")
            return " ".join(said)

        with tempfile.TemporaryDirectory(prefix="harness-test-") as name:  # anybody may enter /tmp
            mine = Path(name)
            (folder / "out").rename(mine / "out")
            for place in (mine, mine / "out"):
                os.chown(place, user, user)
            assert as_user(user, socket.st_gid, report) == "stays a\n"
            assert list((mine / "out").iterdir()) == []

    def test_needs_an_image_that_is_trusted(
        self, engine: DockerEngine, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither that of the run nor any other will do."""

        def missing() -> Image:
            raise ImageMissing("none")

        (folder / "out" / "f").touch()
        os.chown(folder / "out" / "f", 64321, -1)
        monkeypatch.setattr(os, "geteuid", lambda: 64322)
        monkeypatch.setattr(engine, "_has", lambda _: False)
        with pytest.raises(EngineError, match=r"make base-image.*chown"):
            engine.hand_over(folder / "out", missing)
