"""Session log and transcript."""
