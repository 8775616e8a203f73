"""What predictions are made of: words of texts, and keywords of registers."""
