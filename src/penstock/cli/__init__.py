"""The command line: one file per command, which parses, wires and prints."""
