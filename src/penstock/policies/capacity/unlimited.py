"""No window: everything is sent at once."""

import math

from penstock.core.window import CountingWindow


class Unlimited(CountingWindow):
    """What a program without penstock does; the "direct" row of every table.

    Source:
        The baseline.

    """

    window = math.inf
