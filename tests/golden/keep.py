"""Keep the steady stack's decision log as it is now: `python -m tests.golden.keep`."""

from tests.golden.story import steady_lines
from tests.golden.test_decision_log import KEPT

if __name__ == "__main__":
    KEPT.write_text("\n".join(steady_lines()) + "\n")
