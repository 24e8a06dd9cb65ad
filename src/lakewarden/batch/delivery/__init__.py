"""A delivery: its key, its landing prefix, its files and the manifest that makes it complete."""
