"""Whether a request is admitted, deferred or shed."""
