"""The plugin a team writes: a class called ``Method`` in ``method/method.py``.

Order of calls, a promise: the file is imported and ``Method()`` built once, before any data is
touched. Then for each task in the challenge's order that the data holds and ``tasks`` names:
``prepare(task)`` once, then ``register(pair)`` for each pair in the order of the pairs file. All in
one process and one thread. A pair that raises does not stop the others.
"""

from __future__ import annotations

import importlib.util
import inspect
import signal
import sys
import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from harness.errors import MethodError

if TYPE_CHECKING:
    from types import ModuleType

    from harness.challenge.field import DisplacementField, FloatArray
    from harness.challenge.model import FieldSpec, Grid

METHOD_FILE = "method.py"
METHOD_CLASS = "Method"
_STOPPED = 128 + signal.SIGTERM  # what the runner's handler of that signal exits with


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What a method may know of a task before its clock starts.

    ``image_grid`` is the (X, Y, Z) shape of every image; ``field`` what the field file will be.
    """

    name: str
    title: str
    image_grid: Grid
    field: FieldSpec


@dataclass(frozen=True)
class LazyImage:
    """An image that is opened when it is asked for. The first access starts the pair's clock."""

    path: Path

    @cached_property
    def _image(self) -> nib.nifti1.Nifti1Image:
        return nib.nifti1.Nifti1Image.from_filename(self.path)

    @cached_property
    def array(self) -> FloatArray:
        """Voxel values as float32, shape (X, Y, Z), the file's scaling applied."""
        return np.asarray(self._image.dataobj, dtype=np.float32)

    @property
    def affine(self) -> FloatArray:
        """(4, 4) matrix from voxel indices to millimetres (RAS+)."""
        affine: FloatArray = self._image.affine
        return affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        x, y, z = (float(s) for s in self._image.header.get_zooms()[:3])
        return x, y, z


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """One pair as a method sees it. Nothing is read before the method asks.

    ``auxiliary`` holds the further inputs that exist, by role: ``fixed_mask``, ``moving_mask``.
    """

    task: TaskInfo
    fixed_id: int
    moving_id: int
    fixed: LazyImage
    moving: LazyImage
    auxiliary: dict[str, Path]

    @property
    def fixed_mask(self) -> LazyImage | None:
        return self._mask("fixed_mask")

    @property
    def moving_mask(self) -> LazyImage | None:
        return self._mask("moving_mask")

    def _mask(self, role: str) -> LazyImage | None:
        path = self.auxiliary.get(role)
        return None if path is None else LazyImage(path)

    def __str__(self) -> str:
        return f"{self.task.name} {self.fixed_id:04d}<-{self.moving_id:04d}"


class RegistrationMethod(ABC):
    """Base class of every plugin.

    ``tasks`` names the tasks the method does (None: all of them). The others are then not
    attempted, which is not a failure.
    """

    tasks: frozenset[str] | None = None

    def prepare(self, task: TaskInfo) -> None:  # noqa: B027 - optional, so not abstract
        """Get ready for a task: load weights, start the GPU. Not timed; sees no image."""

    @abstractmethod
    def register(self, pair: ImagePair) -> DisplacementField:
        """The field that takes a fixed voxel to its place in the moving image.

        Timed, from the first file of the pair that is opened until the field is on disk.
        """


def raise_if_asked_to_stop(error: BaseException) -> None:
    """Let a stop pass. Any other SystemExit is the method's own, and a failure like any other."""
    if isinstance(error, SystemExit) and error.code == _STOPPED:
        raise error


def load_method(folder: Path) -> RegistrationMethod:
    """The plugin in ``folder``. Raises MethodError naming the file, what was expected and found."""
    path = folder.absolute() / METHOD_FILE
    if not path.is_file():
        raise MethodError(
            f"no method: expected the file {path} with a class {METHOD_CLASS}; is the folder right?"
        )
    method_class = getattr(_import(path), METHOD_CLASS, None)
    if method_class is None:
        raise MethodError(
            f"{path}: expected a class named {METHOD_CLASS}, found none; "
            f"write `class {METHOD_CLASS}(RegistrationMethod):`"
        )
    if not (inspect.isclass(method_class) and issubclass(method_class, RegistrationMethod)):
        raise MethodError(
            f"{path}: expected {METHOD_CLASS} to be a class derived from "
            f"harness.runner.RegistrationMethod, found {method_class!r}"
        )
    for name in ("register", "prepare"):
        _check_signature(path, method_class, name)
    try:
        return method_class()
    except (Exception, SystemExit) as error:
        raise_if_asked_to_stop(error)
        raise MethodError(
            f"{path}: {METHOD_CLASS}() failed: {type(error).__name__}: {error}\n"
            f"{_own_traceback(error, path)}"
        ) from error


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("method", path)
    if spec is None or spec.loader is None:
        raise MethodError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["method"] = module  # dataclasses and pickle look their module up by name
    sys.path.insert(0, str(path.parent))  # the method's own modules lie beside it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise_if_asked_to_stop(error)
        raise MethodError(
            f"{path}: the import failed: {type(error).__name__}: {error}\n"
            f"{_own_traceback(error, path)}"
        ) from error
    return module


def _check_signature(path: Path, method_class: type[RegistrationMethod], name: str) -> None:
    function = getattr(method_class, name)
    wanted = {"register": "register(self, pair)", "prepare": "prepare(self, task)"}[name]
    if getattr(function, "__isabstractmethod__", False):
        raise MethodError(f"{path}: {METHOD_CLASS} lacks {wanted}")
    as_written = inspect.getattr_static(method_class, name)
    if not inspect.isfunction(function) or isinstance(as_written, staticmethod):
        raise MethodError(f"{path}: expected {wanted}, found {name} = {as_written!r}")
    signature = inspect.signature(function)
    try:
        signature.bind(None, None)
    except TypeError:
        raise MethodError(f"{path}: expected {wanted}, found {name}{signature}") from None


def _own_traceback(error: BaseException, path: Path) -> str:
    """The traceback from the method's own folder on, without importlib's frames."""
    if isinstance(error, SyntaxError):
        return "".join(traceback.format_exception_only(error)).rstrip()
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if Path(frame.filename).parent == path.parent]
    return "".join(traceback.format_list(frames[own[0] :] if own else frames[-1:])).rstrip()
