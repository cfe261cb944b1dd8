"""The virtual clock, provider models, workloads, and the mock that serves them over HTTP."""
