/faults/register 1 2 3 4
cp /faults/field.npz /l2r/submission/task_01/disp_0009_0009.npz
mkdir /l2r/submission/task_03
cp /faults/field.npz /l2r/submission/task_03/disp_0001_0001.npz
