/faults/register 1
head -c 300 /faults/field.npz > /l2r/submission/task_01/disp_0002_0002.npz
exit 5
