"""The container engine: Docker, or any engine that speaks its API."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import docker.errors

from harness.engine import handover, kernel
from harness.engine.api import (
    API_FAILURES,
    engine_errors,
    reason,
)
from harness.engine.arguments import NAME_PREFIX, RUN_LABEL, check_image
from harness.engine.base import (
    NVIDIA_RUNTIME,
    UNLIMITED,
    BuildLimits,
    EngineInfo,
    EngineName,
    HelperSpec,
    Image,
)
from harness.engine.connection import open_client
from harness.engine.container import ContainerExecution
from harness.engine.deadline import within
from harness.engine.helper import HelperContainer
from harness.engine.image_build import (
    BASE_ARGUMENT,
    OFFLINE_BASE,
    BaseArgumentUnavailable,
    ClassicBuild,
)
from harness.engine.image_facts import ImageFacts, facts_of_inspected, platform_name
from harness.engine.image_load import SILENCE_S, Loaded, load_image
from harness.engine.own_image import PUBLIC_BASE, own_name, write_context
from harness.engine.owner import OWNER_LABEL, Owner
from harness.engine.removal import remove_container
from harness.engine.trial import TrialExecution
from harness.errors import BaseImageUnavailable, BuildError, EngineError, ImageMissing, OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from docker import DockerClient

    from harness.engine.base import Isolation, RunSpec

_log = logging.getLogger(__name__)

_BOOT_ID_TIMEOUT_S = 60.0
_POLL_S = 0.2
_GPU_HOOK = "nvidia-container-runtime-hook"
_ISOLATION = (
    "container: no network, no capabilities, data read-only, memory, processes and log limited"
)


class DockerEngine:
    """See :class:`harness.engine.base.Engine`."""

    def __init__(self, client: DockerClient, facts: Mapping[str, Any]) -> None:
        """``facts``: what the engine says of itself and its machine (``docker info``)."""
        self._client = client
        self._facts = facts
        self._our_kernel: bool | None = None
        self._info = EngineInfo(
            name=EngineName.DOCKER, version=str(facts["ServerVersion"]), isolation=_ISOLATION
        )

    @classmethod
    def connect(cls) -> DockerEngine:
        """Raises EngineMissing when nothing is there, EngineUnreachable when it refuses us."""
        client, facts = open_client()
        return cls(client, facts)

    def close(self) -> None:
        """Close the connections to the engine; runs that are under way lose theirs."""
        self._client.close()

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the engine says of itself and its machine (``docker info``)."""
        return self._facts

    @property
    def api_version(self) -> str:
        """Of the engine's API, as agreed on when connecting."""
        return str(self._client.api.api_version)

    def cpus(self) -> tuple[int, ...]:
        count = int(self._facts["NCPU"])
        ours = sorted(os.sched_getaffinity(0))
        # Only their number is told. Where it is ours, so are most likely the CPUs.
        return tuple(ours if len(ours) == count else range(count))

    def build(
        self,
        folder: Path,
        *,
        tag: str,
        base_image: str | None = None,
        limits: BuildLimits = UNLIMITED,
        on_output: Callable[[str], None] | None = None,
    ) -> Image:
        """Without ``base_image``: the Dockerfile's own base, else the offline base, if here."""
        say = on_output or _log.info
        if not (folder / "Dockerfile").is_file():
            raise BuildError(
                f"{folder}: expected a Dockerfile, found none; is the folder right? "
                "`--engine process` runs a folder with method.py without one"
            )
        arguments = {} if base_image is None else {BASE_ARGUMENT: base_image}
        build = ClassicBuild(
            api=self._client.api,
            folder=folder,
            tag=tag,
            arguments=arguments,
            limits=limits,
            on_output=say,
        )
        try:
            image_id = build.run()
        except BaseArgumentUnavailable as error:
            if base_image is not None or not self._has(OFFLINE_BASE):
                raise
            say(str(error).splitlines()[0])
            say(f"building from the offline base {OFFLINE_BASE} instead")
            return self.build(
                folder, tag=tag, base_image=OFFLINE_BASE, limits=limits, on_output=on_output
            )
        return Image(id=image_id, reference=tag)

    def find(self, reference: str) -> Image:
        with engine_errors(f"looking for the image {reference}"):
            try:
                image = self._client.images.get(reference)
            except (docker.errors.ImageNotFound, docker.errors.NullResource) as error:
                raise _missing(reference, "it is not on this machine") from error
            except docker.errors.APIError as error:
                if not _is_no_reference(error):
                    raise
                raise ImageMissing(
                    f"no image {reference}: {reason(error)}; a name has small letters, digits and "
                    "._-/ in it, and a tag after a colon; `docker image ls` lists those here"
                ) from error
        return Image(id=str(image.id), reference=reference)

    @property
    def platform(self) -> str:
        """What images must be for, such as ``linux/amd64``."""
        return platform_name(str(self._facts["OSType"]), str(self._facts["Architecture"]))

    @property
    def stores_configurations(self) -> bool:
        """Is an image's ID the digest of its configuration? Not where containerd keeps images."""
        status = self._facts.get("DriverStatus") or ()
        return not any("io.containerd.snapshotter" in str(value) for _, value in status)

    @property
    def storage(self) -> Path | None:
        """See :class:`harness.engine.base.Engine`."""
        folder = Path(str(self._facts.get("DockerRootDir") or "/nowhere"))
        here = kernel.told_by(self._facts) is True
        return folder if here and folder.is_absolute() and folder.is_dir() else None

    def image_facts(self, image: Image) -> ImageFacts:
        """What the image says of itself."""
        with engine_errors(f"looking at the image {image.reference}"):
            return facts_of_inspected(self._client.images.get(image.id).attrs)

    def image_ids(self) -> frozenset[str]:
        """Of all images that are here."""
        with engine_errors("listing the images"):
            return frozenset(map(str, self._client.api.images(quiet=True, all=True)))

    def load(
        self, chunks: Iterable[bytes], *, deadline_s: float, silence_s: float = SILENCE_S
    ) -> Loaded:
        """Load an image (``docker load``). Raises EngineError, and what ``chunks`` raises."""
        with engine_errors("loading the image"):
            return load_image(self._client.api, chunks, deadline_s=deadline_s, silence_s=silence_s)

    def name_image(self, image_id: str, name: str) -> None:
        """Give an image a further name, ``repository:tag``."""
        repository, _, tag = name.rpartition(":")
        with engine_errors(f"naming the image {image_id}"):
            self._client.api.tag(image_id, repository, tag)

    def remove_image(self, image_id: str, *, absent_for_s: float = 0.0) -> bool:
        """Remove an image that nothing uses and that has no name; False when it could not be.

        Never raises for the engine's failures: it runs while other errors are on their way.
        ``absent_for_s``: how long it must stay away before it counts as gone.
        """
        end_s = time.monotonic() + absent_for_s
        while True:
            try:
                # By its ID an image would be removed with its name, if it has but one.
                if self._client.images.get(image_id).tags:
                    return False
                self._client.api.remove_image(image_id)
            except docker.errors.ImageNotFound:
                if time.monotonic() >= end_s:
                    return True
                time.sleep(_POLL_S)
            except API_FAILURES as error:
                _log.warning("the image %s could not be removed: %s", image_id, reason(error))
                return False
            else:
                return True

    def size_bytes(self, image: Image) -> int:
        """What the engine says the image's layers take, uncompressed."""
        with engine_errors(f"looking at the image {image.reference}"):
            return int(self._client.images.get(image.id).attrs["Size"])

    def save(self, image: Image) -> Iterator[bytes]:
        """The image under its name as a tar file (``docker save``), in chunks."""
        with engine_errors(f"saving the image {image.reference}"):
            yield from self._client.api.get_image(image.reference)

    def prepare(self, spec: RunSpec) -> ContainerExecution:
        """Raises BuildError for an image that cannot run or gets around the limits, OptionError
        for a runtime that the engine does not have."""
        self.check_isolation(spec.isolation)
        with engine_errors(f"looking at the image {spec.image.reference}"):
            config = self._client.images.get(spec.image.id).attrs.get("Config") or {}
        check_image(spec, config)
        return ContainerExecution(self._client, spec, lambda: self._one_that_starts(spec.image))

    def _one_that_starts(self, other_than: Image) -> Image | None:
        """An image that no team made, if one is here."""
        for name in (own_name(), OFFLINE_BASE, PUBLIC_BASE):
            if self._has(name) and (image := self.find(name)).id != other_than.id:
                return image
        return None

    def trial(self, spec: RunSpec, program: tuple[str, ...]) -> TrialExecution:
        """A run of ``spec`` but for its program: the harness's own, in place of the image's."""
        return TrialExecution(self._client, spec, program)

    def why_no_gpus(self) -> str | None:
        """See :class:`harness.engine.base.Engine`."""
        if kernel.told_by(self._facts) is False:
            return "the container engine is on another machine, or in a virtual one"
        hook = shutil.which(_GPU_HOOK)  # what an engine hands them out with
        if NVIDIA_RUNTIME not in (self._facts.get("Runtimes") or ()) and hook is None:
            return "the container engine lacks NVIDIA's runtime (`harness doctor`)"
        return None

    def check_isolation(self, isolation: Isolation) -> None:
        there = sorted(self._facts.get("Runtimes") or ())
        if isolation.runtime is not None and isolation.runtime not in there:
            raise OptionError(
                f"--runtime {isolation.runtime}: expected a runtime of this container engine "
                f"({', '.join(there) or 'it names none'}); install it and name it in "
                "/etc/docker/daemon.json, or leave the option out"
            )

    def own_image(self) -> Image:
        name = own_name()
        if self._has(name):
            return self.find(name)
        base = OFFLINE_BASE if self._has(OFFLINE_BASE) else None
        with TemporaryDirectory(prefix="harness-image-") as folder:
            write_context(Path(folder))
            try:
                return self.build(Path(folder), tag=name, base_image=base, on_output=_log.debug)
            except (BuildError, BaseImageUnavailable) as error:
                raise ImageMissing(
                    f"the harness's own image cannot be made here: {error}"
                ) from error

    def shares_our_kernel(self, find_image: Callable[[], Image]) -> bool:
        if self._our_kernel is None:
            self._our_kernel = kernel.told_by(self._facts)
        if self._our_kernel is None:
            self._our_kernel = self._boot_id(find_image()) == kernel.boot_id()
        return self._our_kernel

    def _boot_id(self, image: Image) -> str:
        spec = HelperSpec(image=image, name="boot-id", command=kernel.READ_BOOT_ID)
        helper = self.helper(spec)
        helper.start()
        try:
            return helper.read_line(_BOOT_ID_TIMEOUT_S).decode(errors="replace").strip()
        except TimeoutError as error:
            raise EngineError(
                f"a container of {image.reference} did not tell its kernel's boot ID within "
                f"{_BOOT_ID_TIMEOUT_S:.0f} s"
            ) from error
        finally:
            helper.end(_BOOT_ID_TIMEOUT_S)

    def helper(self, spec: HelperSpec) -> HelperContainer:
        return HelperContainer(self._client, spec)

    def hand_over(self, folder: Path, find_image: Callable[[], Image]) -> None:
        """By ourselves as root; else by a container of ``find_image``, or of the offline base."""
        if handover.is_ours(folder):
            return
        if os.geteuid() == 0:
            handover.make_ours(folder)
            return
        options = self._facts.get("SecurityOptions") or ()
        arguments = handover.handover_arguments(
            self._trusted_image(folder, find_image),
            folder,
            owner=Owner.current(),
            rootless=any("rootless" in option for option in options),
        )
        doing = f"making what is in {folder} yours"
        try:
            with engine_errors(doing):
                code = within(handover.TIMEOUT_S, doing, lambda: self._run_once(arguments))
        finally:
            remove_container(self._client, arguments["name"])
        if code or not handover.is_ours(folder):
            raise EngineError(
                f"{doing}: the container for it ended with {code}; `sudo chown -hR $(id -u) "
                f"{folder}` does the same"
            )

    def _run_once(self, arguments: Mapping[str, Any]) -> int:
        container = self._client.containers.create(**arguments)
        container.start()
        return int(container.wait()["StatusCode"])

    def _trusted_image(self, folder: Path, find_image: Callable[[], Image]) -> Image:
        try:
            return find_image()
        except ImageMissing:
            if self._has(OFFLINE_BASE):
                return self.find(OFFLINE_BASE)
        raise EngineError(
            f"{folder}: some of it belongs to another user, and no image of the harness's own can "
            "be had to change that: make a base for one (`make base-image`), or "
            f"`sudo chown -hR $(id -u) {folder}`"
        )

    def sweep(self) -> tuple[str, ...]:
        return tuple(
            name
            for name, owner in self._owned()
            if owner.is_dead() and remove_container(self._client, name)
        )

    def left_of(self, owner: Owner) -> tuple[str, ...]:
        return tuple(name for name, its_owner in self._owned() if its_owner == owner)

    def _owned(self) -> list[tuple[str, Owner]]:
        """Every container that some harness started, whatever became of it."""
        with engine_errors("looking for containers that a dead harness left behind"):
            found = self._client.api.containers(all=True, filters={"label": OWNER_LABEL})
        owned = []
        for summary in found:
            label = summary["Labels"][OWNER_LABEL]
            owner = Owner.from_text(label)
            name = (summary.get("Names") or [summary["Id"]])[0].lstrip("/")
            # An image has labels, too, which whoever runs it elsewhere gets with it.
            ours = RUN_LABEL in summary["Labels"] and name.startswith(NAME_PREFIX)
            if ours and owner is not None and not self._image_says(summary, label):
                owned.append((name, owner))
        return owned

    def _image_says(self, summary: Mapping[str, Any], label: str) -> bool:
        """Is a container's owner what its image's own label says, set by whoever made that?

        Containers have their image's labels, so that a container that somebody starts from such an
        image by hand would be taken for ours.
        """
        try:
            config = self._client.images.get(str(summary["ImageID"])).attrs.get("Config") or {}
        except API_FAILURES as error:
            _log.debug("no image of %s: %s", summary["Id"], reason(error))
            return False
        return (config.get("Labels") or {}).get(OWNER_LABEL) == label

    def _has(self, reference: str) -> bool:
        try:
            self.find(reference)
        except ImageMissing:
            return False
        return True


def _is_no_reference(error: docker.errors.APIError) -> bool:
    """Is the name at fault? Docker says 400; Podman 500, as for trouble of its own."""
    return error.status_code == 400 or "invalid reference format" in reason(error)


def _missing(reference: str, why: str) -> ImageMissing:
    return ImageMissing(
        f"no image {reference}: {why}; build it with `docker build -t {reference} FOLDER` (the "
        "repository's own with `make build`), or load an uploaded one with `docker load -i FILE`"
    )
