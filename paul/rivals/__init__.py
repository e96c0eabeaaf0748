"""The methods that PAUL is compared with, a folder each, and what they share."""
