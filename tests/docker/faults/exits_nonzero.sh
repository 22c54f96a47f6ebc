/faults/register 1
echo "no pair but the first" >&2
exit 3
