/faults/register 1
cat /l2r/test/task_01/img0002.nii.gz > /dev/null
while :; do :; done
