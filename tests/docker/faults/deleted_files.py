import subprocess
import time
from pathlib import Path

subprocess.run(["/faults/register", "1"], check=True)
path = Path("/l2r/submission/unseen")
files = []
for _ in range(1000):  # 8 MiB each, less than what one file may be
    files.append(path.open("wb"))
    path.unlink()
    files[-1].write(bytes(8 << 20))
    files[-1].flush()
    time.sleep(0.02)
time.sleep(60)
