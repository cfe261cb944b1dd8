"""The dashboard: one state model, computed alike from a running scheduler and from a log."""
