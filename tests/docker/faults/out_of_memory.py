import subprocess

subprocess.run(["/faults/register", "1"], check=True)
bytearray(1 << 30)
