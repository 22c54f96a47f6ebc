import struct
import subprocess
import zipfile

header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (3, 8, 6, 10), }"
start = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
values = struct.pack("<1440e", *[0.0] * 1439, float("nan"))
with zipfile.ZipFile("/l2r/submission/task_01/disp_0001_0001.npz", "w") as file:
    file.writestr("arr_0.npy", start + values)
subprocess.run(["/faults/register", "2", "3", "4"], check=True)
