"""The accounts of deficit round robin, shared by the policies that build on it."""

import math
from collections.abc import Mapping
from typing import Annotated

from penstock.core.rule import Rule
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket

CREDIT_QUANTA, DEBT_QUANTA = 16.0, 256.0
"""4,096 tokens of credit, a long reply, and 65,536 of debt at the default quantum."""
Quantum = Annotated[float, Rule(low=1e-3, high=1e9, why="or no class gets a turn")]


class Deficits:
    """What each class may still spend, in output tokens, topped up in rounds.

    A round gives every waiting class `quantum_tokens` times its weight. Instead of walking the
    rounds one by one, the number of rounds until some head is affordable is computed, so a
    choice costs O(classes) whatever the requests' sizes.

    Source:
        Shreedhar & Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", IEEE/ACM ToN
        4(3), 1996.

    """

    def __init__(self, quantum_tokens: float) -> None:
        """Start with nothing owed."""
        self.quantum_tokens = quantum_tokens
        self.tokens: dict[str, float] = {}

    def affordable(self, name: str, head: Ticket) -> bool:
        """Return whether the class can pay for its head."""
        return self.tokens.get(name, 0.0) >= head.cost_tokens

    def top_up(
        self, heads: Mapping[str, Ticket], weights: Mapping[str, float], signals: Signals
    ) -> None:
        """Give whole rounds to all heads until at least one is affordable.

        Unspent credit of classes that wait for nothing is taken first, as in the source; debts
        stay.
        """
        for name, tokens in self.tokens.items():
            if tokens > 0 and not signals.classes[name].waiting:
                self.tokens[name] = 0.0
        rounds: float = math.inf
        first = ""
        for name, head in heads.items():
            missing = head.cost_tokens - self.tokens.get(name, 0.0)
            needed = math.ceil(missing / (self.quantum_tokens * weights[name]))
            if needed < rounds or (needed == rounds and name < first):
                rounds, first = needed, name
        if rounds > 0:
            for name in heads:
                grant = rounds * self.quantum_tokens * weights[name]
                self.tokens[name] = self.tokens.get(name, 0.0) + grant
            # The sum may round to just below the cost, and then nobody could go.
            self.tokens[first] = max(self.tokens[first], heads[first].cost_tokens)

    def settle(self, traffic_class: str, excess_tokens: float) -> None:
        """Correct the charge by what the reply really cost."""
        self.charge(traffic_class, excess_tokens)

    def rest(self) -> None:
        """Nobody contends: forget credits and debts."""
        self.tokens.clear()

    def deficit_tokens(self, traffic_class: str) -> float:
        """Return what the class may still spend."""
        return self.tokens.get(traffic_class, 0.0)

    def charge(self, traffic_class: str, cost_tokens: float) -> None:
        """Take tokens from a class (negative: give them back).

        What is given back leaves no more than `CREDIT_QUANTA` that was not there before, and no
        debt is deeper than `DEBT_QUANTA`: a giant that is refused, or a usage that is a lie, must
        not keep other classes, or its own, from their turns.
        """
        before = self.tokens.get(traffic_class, 0.0)
        after = before - cost_tokens
        if cost_tokens < 0.0:
            ceiling = CREDIT_QUANTA * self.quantum_tokens
            if after > ceiling:
                after = max(before, ceiling)
        elif after < -DEBT_QUANTA * self.quantum_tokens:
            after = min(before, -DEBT_QUANTA * self.quantum_tokens)
        self.tokens[traffic_class] = after
