"""Command lines on top of training: tables over seeds, pictures."""
