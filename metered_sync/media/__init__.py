"""Media on the blocking face: sources that send, tracks that arrive, and their frames."""
