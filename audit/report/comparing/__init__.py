"""Pages and summaries of comparisons: two runs, or a line of them."""
