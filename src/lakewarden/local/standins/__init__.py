"""What the emulator leaves out: one module for each thing that stands in for it."""
