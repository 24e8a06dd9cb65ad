"""What keeps these pages true: some are generated, and the commands on the others are run."""
