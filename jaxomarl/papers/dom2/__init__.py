"""What makes the tables and figures of DOM2."""
