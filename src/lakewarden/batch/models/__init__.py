"""dbt: what it has to build, building it, and writing marked models back to the lake."""
