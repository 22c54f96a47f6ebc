import signal
import subprocess

signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.run(["/faults/register", "1"], check=True)
while True:
    signal.pause()
