"""What any training needs, whatever it trains: folder, state, steps, optimiser, device, ranks, files."""
