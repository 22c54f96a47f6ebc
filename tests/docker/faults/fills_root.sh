# In pieces, each smaller than what one file may be.
/faults/register 1
number=0
while :; do
  head -c 8M /dev/zero > /var/tmp/big$number || exit 4
  number=$((number + 1))
  sleep 0.02
done
