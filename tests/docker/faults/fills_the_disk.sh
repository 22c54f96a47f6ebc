/faults/register 1
while :; do
  head -c 1M /dev/zero >> /l2r/submission/big || sleep 1
done
