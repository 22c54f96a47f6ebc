"""What can be said of a team's fields before anybody scores them, without any truth.

*Format* is whether a file can be used at all; *meaning* is whether a file that can be used says
what its authors believe it says. Both report :class:`harness.check.findings.Finding`.
"""
