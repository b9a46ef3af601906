"""Who may do what: identities and their permissions, claims, and what is recorded of refusals."""
