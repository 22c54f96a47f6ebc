"""A plugin for methods that are a program: name its command line, and that is all.

::

    class Method(CommandMethod):
        command = ("deeds", "-F", "{fixed}", "-M", "{moving}", "-O", "{output}")
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from signal import Signals
from typing import IO, TYPE_CHECKING, cast
from zipfile import BadZipFile

import nibabel as nib
import numpy as np

from harness.challenge.field import Convention, DisplacementField
from harness.errors import FieldError, MethodError
from harness.runner.plugin import RegistrationMethod

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.runner.plugin import ImagePair

PLACEHOLDERS = (
    *("fixed", "moving", "fixed_mask", "moving_mask", "output"),
    *("task", "fixed_id", "moving_id"),
)
NUMBERS = ("fixed_id", "moving_id")
READABLE = (".npz", ".nii.gz", ".nii")
STDERR_LINES = 20  # kept for the message of a failure; all of them go to our own stderr


class CommandMethod(RegistrationMethod):
    """Runs a program for each pair, without a shell, in a private folder that is then deleted.

    ``command`` is the program and its arguments. In them ``{fixed}`` and ``{moving}`` stand for the
    paths of the images, ``{fixed_mask}`` and ``{moving_mask}`` for those of the masks, ``{output}``
    for the path of the file the program has to write, ``{task}`` for the task's name,
    ``{fixed_id}`` and ``{moving_id}`` for the case ids (``{fixed_id:04d}`` with leading zeros);
    ``{{`` and ``}}`` are plain braces. The program is started in the private folder, so files it
    drops into its working folder do no harm.

    ``output_name`` is the output's name and so its format: ``.npz`` with one array as in the
    challenge's own file, (3, X, Y, Z), or ``.nii.gz`` of shape (X, Y, Z, 3); both in voxels of the
    full-resolution image, components x, y, z. Override :meth:`read_output` for anything else.
    """

    command: tuple[str, ...] = ()
    output_name: str = "field.npz"

    def __init__(self) -> None:
        name = type(self).__name__
        command: object = self.command  # what a team wrote need not be what the type says
        if not isinstance(command, tuple | list) or not command:
            raise MethodError(
                f"{name}.command: expected a tuple of the program and its arguments, "
                f"found {command!r}"
            )
        trial = {key: 1 if key in NUMBERS else key for key in PLACEHOLDERS}
        for argument in self.command:
            _fill(argument, trial, owner=f"{name}.command")
        if Path(self.output_name).name != self.output_name:
            raise MethodError(f"{name}.output_name: expected a name, found {self.output_name!r}")
        own_reader = type(self).read_output is not CommandMethod.read_output
        if not own_reader and not self.output_name.endswith(READABLE):
            raise MethodError(
                f"{name}.output_name: expected one of {', '.join(READABLE)}, found "
                f"{self.output_name!r}; override read_output to read another format"
            )

    def register(self, pair: ImagePair) -> DisplacementField:
        with tempfile.TemporaryDirectory(prefix="harness-command-") as folder:
            output = Path(folder) / self.output_name
            command = self.arguments(pair, output)
            _execute(command, Path(folder), pair)
            if not output.is_file():
                found = ", ".join(sorted(path.name for path in Path(folder).iterdir())) or "nothing"
                raise FieldError(
                    f"{pair}: expected the program to write {{output}}, {output.name}, "
                    f"found {found}\n  command: {shlex.join(command)}"
                )
            try:
                return self.read_output(output)
            except FieldError as error:
                raise FieldError(f"{pair}: {output.name} of {command[0]}: {error}") from error

    def arguments(self, pair: ImagePair, output: Path) -> list[str]:
        """The command line for one pair. Override it where tasks need different arguments."""
        values: dict[str, object] = {
            "fixed": pair.fixed.path,
            "moving": pair.moving.path,
            "output": output,
            "task": pair.task.name,
            "fixed_id": pair.fixed_id,
            "moving_id": pair.moving_id,
        }
        for mask in ("fixed_mask", "moving_mask"):
            if mask in pair.auxiliary:
                values[mask] = pair.auxiliary[mask]
        return [_fill(argument, values, owner=str(pair)) for argument in self.command]

    def read_output(self, path: Path) -> DisplacementField:
        """The field in the program's output file. The file is gone when this has returned."""
        try:
            if path.name.endswith(".npz"):
                with np.load(path, allow_pickle=False) as arrays:
                    if not isinstance(arrays, np.lib.npyio.NpzFile) or len(arrays.files) != 1:
                        raise FieldError("expected an .npz file with exactly one array")
                    return DisplacementField(array=arrays[arrays.files[0]])
            image = nib.nifti1.Nifti1Image.from_filename(path)
            return DisplacementField(
                array=np.asarray(image.dataobj, dtype=np.float32),
                convention=Convention.VOXELS_LAST,
            )
        except (OSError, EOFError, ValueError, BadZipFile, nib.filebasedimages.ImageFileError) as e:
            raise FieldError(f"not a readable field: {type(e).__name__}: {e}") from e


def _fill(argument: str, values: Mapping[str, object], *, owner: str) -> str:
    try:
        return argument.format_map(values)
    except KeyError as error:
        name = error.args[0]
        if name in PLACEHOLDERS:
            raise MethodError(
                f"{owner}: the command asks for {{{name}}} in {argument!r} and the pair has none; "
                "override arguments() to do without"
            ) from None
        known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        raise MethodError(
            f"{owner}: {argument!r} has an unknown placeholder {{{name}}}; known are {known}"
        ) from None
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise MethodError(
            f"{owner}: {argument!r} is not a valid argument: {error}; write {{{{ and }}}} for "
            "plain braces"
        ) from None


def _execute(command: list[str], folder: Path, pair: ImagePair) -> None:
    """Run the command to its end. Its output goes to ours as it comes."""
    tail: deque[str] = deque(maxlen=STDERR_LINES)
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise MethodError(
            f"{pair}: cannot start {command[0]}: {error.strerror}; is it in the image, on the "
            f"PATH and executable?\n  command: {shlex.join(command)}"
        ) from error
    with process:
        try:
            stderr = cast("IO[str]", process.stderr)  # it is a pipe
            while line := stderr.readline(4096):
                sys.stderr.write(line)
                tail.append(line.rstrip("\n"))
        except BaseException:
            process.kill()  # leaving the block waits for it
            raise
    if process.returncode != 0:
        last = "\n".join(f"  | {line}" for line in tail) or "  (it wrote nothing to stderr)"
        raise MethodError(
            f"{pair}: {command[0]} {_ending(process.returncode)}\n"
            f"  command: {shlex.join(command)}\n{last}"
        )


def _ending(returncode: int) -> str:
    if returncode > 0:
        return f"ended with exit code {returncode}"
    hint = "; out of memory?" if -returncode == Signals.SIGKILL else ""
    return f"was ended by {Signals(-returncode).name}{hint}"
