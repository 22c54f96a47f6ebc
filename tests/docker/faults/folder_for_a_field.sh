/faults/register 2 3 4
mkdir /l2r/submission/task_01/disp_0001_0001.npz
cp /faults/field.npz /l2r/submission/task_01/disp_0001_0001.npz/
