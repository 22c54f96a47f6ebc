/faults/register 1
head -c 1G /dev/zero > /var/tmp/big || exit 4
/faults/register 2 3 4
