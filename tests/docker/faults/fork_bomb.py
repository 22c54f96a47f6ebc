import os
import subprocess

subprocess.run(["/faults/register", "1"], check=True)
while True:
    try:
        os.fork()
    except OSError:  # it may have no more: then it tries again
        continue
