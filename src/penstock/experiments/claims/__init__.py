"""The paper's claims P1 to P7, each a relation that is looked for in our runs."""
