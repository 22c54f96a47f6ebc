/faults/register 1
head -c 4G /dev/zero > /l2r/submission/big
exit 0
