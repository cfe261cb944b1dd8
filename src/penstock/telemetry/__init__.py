"""OpenTelemetry: spans, metrics and trace context. Loaded only where somebody wants them."""
