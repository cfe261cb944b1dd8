"""The pure scheduler: events in, actions out; no clock, chance, input or output."""
