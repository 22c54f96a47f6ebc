"""A field of the right shape, and after it 64 MiB of zeros in 64 KiB."""

import subprocess
import zipfile

header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (3, 8, 6, 10), }"
start = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
path = "/l2r/submission/task_01/disp_0001_0001.npz"
with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("arr_0.npy", "w") as array:
    array.write(start)
    for _ in range(64):
        array.write(bytes(1 << 20))
subprocess.run(["/faults/register", "2", "3", "4"], check=True)
