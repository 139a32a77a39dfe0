"""The registry: runs, model versions and aliases (mlflow), their lineage and their cards."""
