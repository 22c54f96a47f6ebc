/faults/register 1
head -c 64M /dev/zero > /dev/shm/big || exit 4
/faults/register 2 3 4
