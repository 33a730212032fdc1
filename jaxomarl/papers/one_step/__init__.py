"""One-step policies: what distilling joint flows into policies that act apart keeps and loses."""
