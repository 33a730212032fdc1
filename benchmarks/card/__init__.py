"""The card's queue: the tables that only an accelerator can train, cell after cell."""
