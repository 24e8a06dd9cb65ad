"""Delivered bytes → records → rows that fit their table, or the reason why one does not."""
