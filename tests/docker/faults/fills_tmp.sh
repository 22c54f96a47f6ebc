/faults/register 1
head -c 64M /dev/zero > /tmp/big || exit 4
/faults/register 2 3 4
