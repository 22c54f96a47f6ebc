import signal
import subprocess
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.run(["/faults/register", "1"], check=True)
time.sleep(30)
