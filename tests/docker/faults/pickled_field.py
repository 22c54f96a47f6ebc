import io
import os
import pickle
import subprocess
import zipfile


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/harness-unpickled-a-field",)


header = b"{'descr': '|O', 'fortran_order': False, 'shape': (3, 8, 6, 10), }"
array = io.BytesIO()
array.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n")
pickle.dump(Harmful(), array)
with zipfile.ZipFile("/l2r/submission/task_01/disp_0001_0001.npz", "w") as file:
    file.writestr("arr_0.npy", array.getvalue())
subprocess.run(["/faults/register", "2", "3", "4"], check=True)
