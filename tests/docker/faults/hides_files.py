# Files without a name in the output folder, which no process holds open: they are on their way
# through sockets.
import array
import os
import socket
import subprocess
import time

subprocess.run(["/faults/register", "1"], check=True)
sockets = []
for _ in range(1000):
    file = os.open("/l2r/submission", os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        os.write(file, bytes(4 << 20))
    except OSError:
        time.sleep(60)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
    os.close(file)
    sockets.append((here, there))
    time.sleep(0.05)
