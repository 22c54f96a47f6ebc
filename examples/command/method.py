"""A method that is a program: the plugin only says how to call it.

Here it is a Python script beside this file; for yours, put the program into the image and write its
own command line.
"""

import sys
from pathlib import Path

from harness.runner import CommandMethod


class Method(CommandMethod):
    command = (
        sys.executable,
        str(Path(__file__).resolve().with_name("register.py")),
        *("--fixed", "{fixed}", "--moving", "{moving}", "--output", "{output}"),
    )
