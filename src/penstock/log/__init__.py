"""The decision log: its format, its writer, its reader, and `explain`, which puts it in words."""
