# So many files that a look at them takes long, and much that is written and deleted between looks.
import os
import subprocess
import time

os.mkdir("/many")
for number in range(60_000):
    os.close(os.open(f"/many/{number}", os.O_CREAT | os.O_WRONLY))
time.sleep(2)  # until it has been looked at
for number in range(5):
    with open(f"/var/tmp/big{number}", "wb") as file:
        for _ in range(60):
            file.write(bytes(1 << 20))
time.sleep(1.5)
for number in range(5):
    os.unlink(f"/var/tmp/big{number}")
subprocess.run(["/faults/register", "1", "2", "3", "4"], check=True)
