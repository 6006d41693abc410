"""`make new-entity`: a contract and its migration proposed from a sample of a source, and a dry sync of it."""
