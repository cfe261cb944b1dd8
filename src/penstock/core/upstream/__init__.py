"""One upstream: its ledger of attempts, its circuit breaker and its rate limits."""
