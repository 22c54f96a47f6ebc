/faults/register 1 2 3 4
mv /l2r/submission/task_01 /l2r/submission/elsewhere
ln -s /etc /l2r/submission/task_01
