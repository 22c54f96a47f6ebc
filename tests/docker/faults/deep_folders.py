import os
import subprocess
import time

subprocess.run(["/faults/register", "1"], check=True)
os.chdir("/l2r/submission")
for _ in range(5000):  # past what a path can be long
    os.mkdir("deeper")
    os.chdir("deeper")
time.sleep(60)
