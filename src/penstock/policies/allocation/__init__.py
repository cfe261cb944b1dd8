"""Which traffic class sends next."""
