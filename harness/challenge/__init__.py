"""The contract: challenge, tasks, pairs, fields. Pure: no containers, no clocks."""
