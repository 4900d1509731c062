"""Speed, memory and truth, side by side with peers and with the limit; see README.md."""
