"""Every seed of `make fuzz`, and each with a few bytes changed, is read without a fault."""

import random

import pytest

from tests.fuzz.targets import TARGETS

ROUNDS = 100


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_almost_right_is_read_without_a_fault(name: str) -> None:
    target, chance = TARGETS[name], random.Random(name)
    for seed in target.seeds:
        target.read(seed)
        for _ in range(ROUNDS):
            data = bytearray(seed)
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(data))
                data[at : at + chance.randrange(3)] = chance.choice(
                    (
                        b"",
                        b"\0",
                        b"\xff",
                        b"9" * 30,
                        b"-",
                        b"[",
                        b'"',
                        bytes([chance.randrange(256)]),
                    )
                )
            target.read(bytes(data))
