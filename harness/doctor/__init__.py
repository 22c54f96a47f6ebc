"""What this machine has for timed runs of programs nobody trusts, what it lacks, and the command
that gets it. :func:`harness.doctor.examine.examine` looks at everything; docs/doctor.md says why.
"""
