"""What stands in for the machines of ECS: containers that are processes of an allow-list."""
