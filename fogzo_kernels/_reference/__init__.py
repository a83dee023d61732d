"""The numbers of the specification in plain torch, shared by the reference operations."""
