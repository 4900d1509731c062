"""Contact sheets, figures and pictures of samples as PNG."""
