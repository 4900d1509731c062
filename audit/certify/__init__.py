"""The known-answer benchmark: plant shortcuts, train on them, and see what the audit finds."""
