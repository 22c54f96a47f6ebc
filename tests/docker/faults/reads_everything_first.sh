cat /l2r/test/*/* > /dev/null
cd /l2r/submission || exit
for field in task_01/disp_0001_0001 task_01/disp_0002_0002 \
             task_02/disp_0007_0008 task_02/disp_0008_0009; do
  sleep 0.1
  cp /faults/field.npz $field.part && mv $field.part $field.npz
done
