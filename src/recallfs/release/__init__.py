"""Evidence before deletion: proofs, policy, the trash."""
