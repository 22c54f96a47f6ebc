/faults/register 1
cat /l2r/test/task_01/img0002.nii.gz > /dev/null
ln /l2r/submission/task_01/disp_0001_0001.npz /l2r/submission/task_01/disp_0002_0002.npz
ln /faults/field.npz /l2r/submission/task_02/disp_0007_0008.npz && exit 99
/faults/register 3 4
