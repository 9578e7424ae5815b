"""The seam between torch and the store: what is recorded, where it comes from, and what it tells."""
