import os
import subprocess
import sys

TEXTS = ("two\nlines", "\x1b[31mred\x1b[0m", "\u202egnp.exe", " ", "名前", "-rf")
NAMES = [*(text.encode() for text in TEXTS), b"\xff\xfe"]
for raw in NAMES:
    os.mkdir(b"/l2r/submission/" + raw)
    for folder in (raw, b"task_01"):
        os.close(os.open(b"/l2r/submission/" + folder + b"/x" + raw, os.O_WRONLY | os.O_CREAT))
    sys.stdout.buffer.write(raw + b"\n")
sys.stdout.buffer.write(b"\x1b]0;owned\x07\x1b[2J\x1b[1;1H\r\x9b5n\x00\x08 end\n")
sys.stdout.flush()
subprocess.run(["/faults/register", "1", "2", "3"], check=True)
