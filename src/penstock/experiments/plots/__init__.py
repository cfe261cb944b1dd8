"""Plots as SVG text, to stand inside one HTML file."""
