"""Heatmap grids and the page, drawn from stored rows and thumbnails alone."""
