import os
import subprocess

subprocess.run(["/faults/register", "2", "3", "4"], check=True)
os.close(os.open("/l2r/submission/task_01/disp_0001_0001.npz", os.O_WRONLY | os.O_CREAT))
os.truncate("/l2r/submission/task_01/disp_0001_0001.npz", 1 << 32)
