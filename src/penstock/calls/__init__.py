"""What a call asks for, read once for every door: its facts, its hints and its estimate. Pure."""
