umask 777
mkdir /l2r/submission/private /l2r/submission/task_01/private
umask 022
/faults/register 1 2 3 4
chmod 0 /l2r/submission/task_01/disp_0001_0001.npz
chmod 0 /l2r/submission/task_02
