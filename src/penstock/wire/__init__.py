"""Readers and writers of the vendors' wire formats. No I/O: bytes in, facts out."""
