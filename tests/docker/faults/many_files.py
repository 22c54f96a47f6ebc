import subprocess
from pathlib import Path

subprocess.run(["/faults/register", "1"], check=True)
for number in range(1_000_000):
    if number % 1000 == 0:
        folder = Path(f"/l2r/submission/many/{number}")
        folder.mkdir(parents=True)
    (folder / str(number)).touch()
