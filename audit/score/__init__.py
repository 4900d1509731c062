"""Maps and masks to numbers, one a sample: attention, contributions, transplants, prediction."""
