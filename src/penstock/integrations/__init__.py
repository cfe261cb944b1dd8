"""Where penstock meets the SDKs: HTTP transports, the vendors' wire formats, batch files."""
