"""What is learned from the user's own replies while they come in."""
