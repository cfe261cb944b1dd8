"""The study as Markdown, as one HTML file, and as JSON."""
