"""What makes the tables and figures of OMSD."""
