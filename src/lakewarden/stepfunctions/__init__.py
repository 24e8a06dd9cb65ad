"""The pipeline on Step Functions: Lambda handlers, and the task that ECS runs: docs/pipeline.md."""
