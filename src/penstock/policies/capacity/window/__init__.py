"""The learnt concurrency limit: expected service, flights, evidence, estimate, steering."""
