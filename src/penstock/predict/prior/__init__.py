"""What was learned from recorded replies before the first one of the user's own."""
