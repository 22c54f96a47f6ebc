"""The pure parts of the engines: container arguments, build output, owners, choice, messages."""

from __future__ import annotations

import dataclasses
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import docker.errors
import pytest

from harness.engine.arguments import check_image, container_arguments, unique_name
from harness.engine.base import BindMount, EngineName, Image, Isolation, RunSpec
from harness.engine.choose import choose_engine
from harness.engine.connection import connect_error
from harness.engine.container_end import failed_start
from harness.engine.deadline import Request, within
from harness.engine.docker import DockerEngine
from harness.engine.image_build import BuildTranscript, base_default
from harness.engine.kernel import open_files_limit
from harness.engine.owner import OWNER_LABEL, Owner
from harness.errors import BuildError, EngineError, EngineMissing, EngineUnreachable
from tests.tiny import tiny_challenge

MIB = 2**20


def spec(**changes: object) -> RunSpec:
    given = RunSpec(
        image=Image(id="sha256:" + "a" * 64, reference="l2r_submission"),
        name="local/2021 run",
        mounts=(
            BindMount(source=Path("/data"), target="/l2r/test", read_only=True),
            BindMount(source=Path("/out"), target="/l2r/submission", read_only=False),
        ),
        limits=tiny_challenge().limits,
        log_path=Path("/log.txt"),
        arguments=("/l2r/data/NLST_dataset.json",),
        environment={"A": "b"},
    )
    return dataclasses.replace(given, **changes)  # type: ignore[arg-type]


def arguments() -> dict[str, Any]:
    return container_arguments(spec(), name="l2r-x", owner=Owner.current())


class TestContainerArguments:
    def test_the_image_is_named_by_its_immutable_id(self) -> None:
        assert arguments()["image"] == "sha256:" + "a" * 64

    def test_limits(self) -> None:
        found = arguments()
        assert found["mem_limit"] == 2048 * MIB
        assert found["memswap_limit"] == found["mem_limit"], "equal means: no swap"
        assert found["shm_size"] == 64 * MIB
        assert found["pids_limit"] == 256

    def test_limits_of_a_process(self) -> None:
        limits = {limit.name: (limit.soft, limit.hard) for limit in arguments()["ulimits"]}
        given = spec().limits
        most = max(given.output_bytes, given.scratch_bytes)
        assert limits == {
            "core": (0, 0),
            "nofile": (given.open_files, given.open_files),
            "fsize": (most, most),
        }

    def test_temporary_folder(self) -> None:
        (place, options), *others = arguments()["tmpfs"].items()
        assert not others
        assert place == "/tmp"
        assert set(options.split(",")) >= {"exec", "nosuid", "nodev", "mode=1777"}
        assert f"size={4 << 30}" in options

    def test_what_the_organiser_may_choose(self) -> None:
        assert arguments()["read_only"] is False
        assert arguments()["runtime"] is None
        chosen = Isolation(read_only_root=True, runtime="nvidia")
        found = container_arguments(spec(isolation=chosen), name="l2r-x", owner=Owner.current())
        assert found["read_only"] is True
        assert found["runtime"] == "nvidia"
        assert found["environment"]["NVIDIA_VISIBLE_DEVICES"] == "all"

    def test_gpu_that_was_chosen_is_the_only_one(self) -> None:
        """Nothing that a challenge sets for its containers changes which."""
        one = spec(gpus=("GPU-1",), environment={"NVIDIA_VISIBLE_DEVICES": "all", "A": "b"})
        found = container_arguments(one, name="l2r-x", owner=Owner.current())
        (request,) = found["device_requests"]
        assert request["DeviceIDs"] == ["GPU-1"]
        assert request["Capabilities"] == [["gpu"]]
        assert not request["Count"]
        assert found["environment"] == {
            "A": "b",
            "NVIDIA_VISIBLE_DEVICES": "GPU-1",
            "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        }

    def test_several_gpus_and_none(self) -> None:
        owner = Owner.current()
        found = container_arguments(spec(gpus=("GPU-1", "GPU-2")), name="l2r-x", owner=owner)
        (request,) = found["device_requests"]
        assert request["DeviceIDs"] == ["GPU-1", "GPU-2"]
        assert found["environment"]["NVIDIA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
        runtime = Isolation(runtime="nvidia")
        found = container_arguments(spec(gpus=(), isolation=runtime), name="l2r-x", owner=owner)
        assert "device_requests" not in found
        assert found["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"

    def test_cpus(self) -> None:
        owner = Owner.current()
        kept_off = container_arguments(spec(cpuset=(0, 1, 2)), name="l2r-x", owner=owner)
        assert kept_off["cpuset_cpus"] == "0,1,2"
        assert arguments()["cpuset_cpus"] is None

    def test_isolation(self) -> None:
        found = arguments()
        assert found["network_mode"] == "none"
        assert found["cap_drop"] == ["ALL"]
        assert "cap_add" not in found
        assert found["security_opt"] == ["no-new-privileges"]
        assert found["privileged"] is False
        assert found["init"] is True
        assert found["tty"] is False
        assert found["ipc_mode"] == "private"
        assert found["healthcheck"] == {"test": ["NONE"]}
        assert found["stop_signal"] == "SIGTERM"
        assert 0 < found["oom_score_adj"] <= 1000
        wider = {
            *("devices", "device_requests", "device_cgroup_rules", "group_add", "volumes", "user"),
            *("volumes_from", "pid_mode", "uts_mode", "userns_mode", "cgroupns", "cgroup_parent"),
            *("restart_policy", "oom_kill_disable", "sysctls", "links", "ports", "auto_remove"),
        }
        assert not wider & set(found)

    def test_mounts(self) -> None:
        data, output = arguments()["mounts"]
        assert (data["Source"], data["Target"], data["ReadOnly"]) == ("/data", "/l2r/test", True)
        assert (output["Source"], output["ReadOnly"]) == ("/out", False)
        assert {data["Type"], output["Type"]} == {"bind"}
        for mount in (data, output):
            assert mount["BindOptions"] == {"Propagation": "private", "NonRecursive": True}

    def test_of_a_folder_in_part_only_what_is_named(self) -> None:
        """In an empty folder, read-only itself, in which nothing else can be made."""
        in_part = BindMount(
            source=Path("/data"), target="/l2r/test", read_only=True, only=("a, b", "x.json")
        )
        found = container_arguments(spec(mounts=(in_part,)), name="l2r-x", owner=Owner.current())
        frame, *parts = found["mounts"]
        assert (frame["Type"], frame["Target"], frame["ReadOnly"]) == ("tmpfs", "/l2r/test", True)
        assert not frame["Source"]
        assert [(part["Source"], part["Target"]) for part in parts] == [
            ("/data/a, b", "/l2r/test/a, b"),
            ("/data/x.json", "/l2r/test/x.json"),
        ]
        for part in parts:
            assert part["Type"] == "bind"
            assert part["ReadOnly"] is True
            assert part["BindOptions"] == {"Propagation": "private", "NonRecursive": True}

    def test_the_daemon_keeps_no_log_of_its_own(self) -> None:
        assert arguments()["log_config"]["Type"] == "none"

    def test_labels_name_the_owner(self) -> None:
        labels = arguments()["labels"]
        assert Owner.from_text(labels[OWNER_LABEL]) == Owner.current()
        assert "local/2021 run" in labels.values()

    def test_what_the_submission_is_given(self) -> None:
        assert arguments()["command"] == ["/l2r/data/NLST_dataset.json"]
        assert arguments()["environment"] == {"A": "b", "NVIDIA_VISIBLE_DEVICES": "void"}


class TestImagesThatAreRefused:
    """See tests/docker/test_isolation.py for what happens to those that are not."""

    PROGRAM: ClassVar = {"Entrypoint": ["/x"]}

    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"Volumes": {}, "WorkingDir": "/work"},
            {"Volumes": {"/data": {}, "/l2r": {}, "/l2r/submission": {}, "/tmp": {}, "/": {}}},
            {"Volumes": {"/l2r/submissions": {}, "/device": {}}, "Volume": None},
        ],
    )
    def test_not_these(self, config: dict[str, Any]) -> None:
        check_image(spec(), {**self.PROGRAM, **config})

    @pytest.mark.parametrize(
        "config",
        [
            {"Volumes": {"/data": {}, "/l2r/submission/task_01": {}}},
            {"Volumes": {"/l2r/test/task_01/": {}}},
            {"Volumes": {"/x/../l2r/./submission//task_01": {}}},
            {"Volumes": {"//proc": {}}},
            {"Volumes": {"/dev/shm": {}}},
            {"WorkingDir": "/proc/self/fd/7"},
            {"WorkingDir": "/x/../sys"},
        ],
    )
    def test_these(self, config: dict[str, Any]) -> None:
        with pytest.raises(BuildError, match=r"VOLUME|WORKDIR"):
            check_image(spec(), {**self.PROGRAM, **config})

    def test_a_volume_where_the_root_is_to_be_read_only(self) -> None:
        strict = spec(isolation=Isolation(read_only_root=True))
        with pytest.raises(BuildError, match=r"VOLUME '/data'.*read-only"):
            check_image(strict, {**self.PROGRAM, "Volumes": {"/data": {}}})

    def test_one_without_a_program(self) -> None:
        with pytest.raises(BuildError, match="ENTRYPOINT"):
            check_image(spec(arguments=()), {"Entrypoint": None, "Cmd": []})


class TestStartsThatFail:
    @pytest.mark.parametrize(
        ("message", "code", "expected"),
        [
            ("unable to find user x: no matching entries in passwd file", 128, 126),
            ("... container init: exec: not a directory", 127, 127),
            ("... starting: permission denied", 126, 126),
            ('exec: "docker-init": executable file not found in $PATH', 127, None),
            ('"/m/proc/x" cannot be mounted because it is inside /proc', 128, 126),
            ("no space left on device", 128, None),
        ],
    )
    def test_whose_they_are(self, message: str, code: int, expected: int | None) -> None:
        found = failed_start(message, {"ExitCode": code})
        assert (None if found is None else found.exit_code) == expected


class TestDeadlines:
    def test_an_answer(self) -> None:
        assert within(5.0, "asking", lambda: 7) == 7

    def test_a_failure_is_the_requests_own(self) -> None:
        def fail() -> None:
            raise docker.errors.APIError("no")

        with pytest.raises(docker.errors.APIError):
            within(5.0, "asking", fail)

    def test_no_answer_in_time(self) -> None:
        late: list[int] = []
        go_on = threading.Event()

        def ask() -> int:
            go_on.wait(10)
            return 7

        request = Request(ask, when_late=late.append)
        with pytest.raises(EngineError, match=r"asking it: .* did not answer within 0 s"):
            request.answer(0.05, "asking it")
        assert late == []
        go_on.set()
        assert request.is_over(5)
        assert late == [7], "what it made is taken care of"


def test_container_names_are_valid_and_unique() -> None:
    first, second = unique_name(spec(name="Müller/../run 1")), unique_name(spec(name="x" * 300))
    for name in (first, second):
        assert name.isascii()
        assert len(name) < 100
        assert not set(name) & set("/ ")
    assert unique_name(spec()) != unique_name(spec())


def test_limit_of_open_files_is_read_from_the_kernel() -> None:
    assert open_files_limit(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert open_files_limit(2**22 + 1) is None


class TestOwner:
    def test_reads_back(self) -> None:
        assert Owner.from_text(Owner.current().text) == Owner.current()

    @pytest.mark.parametrize("text", ["", "1234", "[]", '{"pid": 1}', '{"surprise": 1}'])
    def test_text_that_is_no_owner(self, text: str) -> None:
        assert Owner.from_text(text) is None

    def test_this_process_is_alive(self) -> None:
        assert not Owner.current().is_dead()

    def test_an_ended_process_is_dead(self) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            child.wait()
        assert dataclasses.replace(Owner.current(), pid=str(child.pid)).is_dead()

    def test_a_zombie_is_dead(self) -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert dataclasses.replace(Owner.current(), pid=str(pid)).is_dead()
        os.waitpid(pid, 0)

    def test_another_process_with_the_same_id_is_not_the_owner(self) -> None:
        assert dataclasses.replace(Owner.current(), start="1").is_dead()

    def test_after_a_reboot_the_owner_is_dead(self) -> None:
        assert dataclasses.replace(Owner.current(), boot="another").is_dead()

    @pytest.mark.parametrize("place", [{"machine": "elsewhere"}, {"namespace": "pid:[1]"}])
    def test_elsewhere_nobody_can_be_judged(self, place: dict[str, str]) -> None:
        """Two harnesses may share one daemon: a container of the other is left alone."""
        owner = dataclasses.replace(Owner.current(), pid="999999999", start="1", **place)
        assert not owner.is_dead()


def transcript(*lines: str, **given: str) -> BuildTranscript:
    found = BuildTranscript(given)
    for line in lines:
        found.line(line)
    return found


class TestBuildTranscript:
    ARG = "Step 1/3 : ARG BASE_IMAGE=python:3.11-slim-bookworm"
    FROM = "Step 2/3 : FROM ${BASE_IMAGE} AS dependencies"

    def test_a_from_that_fails_names_the_default_base(self) -> None:
        found = transcript(self.ARG, self.FROM)
        assert found.unavailable_image("dial tcp: no such host") == "python:3.11-slim-bookworm"
        assert found.uses_base_argument

    def test_a_from_that_fails_names_the_base_that_was_given(self) -> None:
        found = transcript(self.ARG, self.FROM, BASE_IMAGE="mine:1")
        assert found.unavailable_image("whatever the engine calls it") == "mine:1"

    @pytest.mark.parametrize(
        ("line", "image"),
        [
            ("Step 1/2 : FROM ubuntu:24.04", "ubuntu:24.04"),
            ("Step 1/2 : FROM --platform=linux/amd64 ubuntu AS base", "ubuntu"),
            ("STEP 1/2: FROM docker.io/library/ubuntu", "docker.io/library/ubuntu"),
            ("Step 1/2 : FROM ${NOTHING:-ubuntu:22.04}", "ubuntu:22.04"),
        ],
    )
    def test_spellings(self, line: str, image: str) -> None:
        found = transcript(line)
        assert found.unavailable_image("no") == image
        assert not found.uses_base_argument

    FILLED_IN = "[1/3] STEP 1/8: FROM python:3.11-slim-bookworm AS dependencies"

    def test_variables_that_the_engine_has_filled_in(self) -> None:
        """Podman shows the image's name in place of the argument that chose it, and no ARG. A
        missing base was once reported as the team's failed build."""
        found = BuildTranscript({}, "python:3.11-slim-bookworm")
        found.line(self.FILLED_IN)
        assert found.unavailable_image("no such host") == "python:3.11-slim-bookworm"
        assert found.uses_base_argument
        given = BuildTranscript({"BASE_IMAGE": "mine:1"}, "python:3.11-slim-bookworm")
        given.line(self.FILLED_IN)
        assert not given.uses_base_argument

    @pytest.mark.parametrize(
        ("text", "default"),
        [
            ("# a comment\nARG BASE_IMAGE=python:3.11\nFROM ${BASE_IMAGE}\n", "python:3.11"),
            ('arg BASE_IMAGE="debian:12"\n', "debian:12"),
            ("ARG BASE_IMAGE\nFROM x\n", None),
        ],
    )
    def test_the_default_base(self, tmp_path: Path, text: str, default: str | None) -> None:
        (tmp_path / "Dockerfile").write_text(text)
        assert base_default(tmp_path / "Dockerfile") == default
        assert base_default(tmp_path / "none") is None

    @pytest.mark.parametrize(
        ("message", "is_the_engines"),
        [
            ("failed to create endpoint x on network bridge: could not find bridge docker0", True),
            ("The command '/bin/sh -c echo could not find bridge' returned: 1", False),
        ],
    )
    def test_an_engine_without_its_own_network_is_the_machines(
        self, message: str, is_the_engines: bool
    ) -> None:
        """A team's image once "could not be built" because the engine had lost its bridge."""
        found = transcript(self.ARG, self.FROM, " ---> 6148f42c0e77", "Step 3/3 : RUN true")
        assert found.engine_failed(message) is is_the_engines

    def test_once_the_layer_is_there_it_is_not_the_base(self) -> None:
        found = transcript(self.ARG, self.FROM, " ---> 6148f42c0e77", "Step 3/3 : RUN false")
        assert found.unavailable_image("returned a non-zero code: 1") is None
        assert found.step == "RUN false"

    def test_a_run_that_talks_like_an_engine_is_not_the_base(self) -> None:
        """pip's "connection refused" is the team's (or the proxy's) trouble, not a missing base."""
        found = transcript(
            self.ARG, self.FROM, " ---> 6148f42c0e77", "Step 3/3 : RUN pip install x"
        )
        assert found.unavailable_image("dial tcp: connection refused") is None

    def test_an_image_to_copy_from(self) -> None:
        found = transcript("Step 3/3 : COPY --from=ghcr.io/tool:1 /tool /bin/")
        assert found.unavailable_image("pull access denied for ghcr.io/tool") == "ghcr.io/tool:1"
        assert found.unavailable_image("COPY failed: stat tool: file does not exist") is None


def wrapped(error: Exception) -> Exception:
    """As requests and the SDK wrap the system's errors."""
    outer = RuntimeError("Error while fetching server API version")
    outer.__cause__ = ConnectionError("Connection aborted.", error)
    return outer


class TestConnecting:
    @pytest.fixture(autouse=True)
    def _no_host(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DOCKER_HOST", raising=False)

    @pytest.mark.parametrize("error", [FileNotFoundError(2, "no"), ConnectionRefusedError(111, "")])
    def test_nothing_there_says_what_is_lost(self, error: OSError) -> None:
        found = connect_error(wrapped(error), None)
        assert isinstance(found, EngineMissing)
        assert "isolation" in str(found)
        assert "install" in str(found)

    def test_a_socket_that_refuses_us_names_both_ways_in(self) -> None:
        found = connect_error(wrapped(PermissionError(13, "Permission denied")), None)
        assert isinstance(found, EngineUnreachable)
        assert "usermod -aG docker" in str(found)
        assert "sudo" in str(found)

    def test_an_address_that_does_not_answer_is_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
        with pytest.raises(EngineUnreachable, match=r"tcp://127\.0\.0\.1:1"):
            DockerEngine.connect()

    def test_a_malformed_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DOCKER_HOST", "nonsense://")
        with pytest.raises(EngineUnreachable, match="nonsense"):
            DockerEngine.connect()


class TestChoosing:
    """The guard of conftest.py makes the engine unreachable here."""

    def test_process(self) -> None:
        engine, notice = choose_engine("process")
        assert engine.info.name is EngineName.PROCESS
        assert notice is None

    def test_auto_falls_back_with_one_line(self) -> None:
        engine, notice = choose_engine("auto")
        assert engine.info.name is EngineName.PROCESS
        assert notice is not None
        assert "without isolation" in notice
        assert "\n" not in notice

    def test_docker_does_not_fall_back(self) -> None:
        with pytest.raises(EngineUnreachable):
            choose_engine("docker")


class TestTheSwitch:
    """Tests that need an engine: skipped without one, failed where HARNESS_REQUIRE_DOCKER=1."""

    def one_docker_test(self, **environment: str) -> str:
        test = "tests/docker/test_docker_engine.py::test_info"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"DOCKER_HOST": "unix:///nonexistent/engine"} | environment,
            check=False,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def test_skipped_with_a_reason(self) -> None:
        found = self.one_docker_test(HARNESS_REQUIRE_DOCKER="")
        assert "1 skipped" in found
        assert "unix:///nonexistent/engine" in found

    def test_failed_where_it_is_required(self) -> None:
        found = self.one_docker_test(HARNESS_REQUIRE_DOCKER="1")
        assert "1 skipped" not in found
        assert "HARNESS_REQUIRE_DOCKER=1, but" in found
