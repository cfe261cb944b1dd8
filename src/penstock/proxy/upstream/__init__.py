"""The way up: a small HTTP/1.1 client made for relaying bytes as they are."""
