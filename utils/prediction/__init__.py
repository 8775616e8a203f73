"""From new texts to their registers: one text, a stream, a corpus."""
