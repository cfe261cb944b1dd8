"""The twin: a provider model fitted to a decision log, and the log's traffic run against it again.

Here live: what a log says of a provider (`history`), the fits of the kinds of provider, the check
of a fit on time that was held back, other configurations (`policy`) and what they would have
changed (`whatif`). No network, no clock: a log goes in, figures come out.
"""
